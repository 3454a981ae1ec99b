"""The word lists behind the tasks' grammars; the bundled models were trained on these words."""

NAMES = (
    "Mary John Tom James Dan Martin Amy Sarah Alice Bob Carol David Emma Frank Grace Henry Jack Kate Leo Mia "
    "Noah Paul Rachel Sam Tina Victor Adam Beth Carl Diana Eric George Helen Ian Julia Kevin Laura Mark Nina Oscar "
    "Penny Ryan Sophie Peter Lucy Max Anna Ben Clara Fred Ella Simon Jane Luke Rose Andrew Steven Richard Michael "
    "Robert William Thomas Daniel Matthew"
).split()
PLACES = (
    "store park school station hospital office library market beach church garden museum theater restaurant bank farm "
    "castle harbor gym hotel"
).split()
OBJECTS = (
    "drink book ring computer basketball necklace snack letter ticket flower key map camera pen hat coat apple phone "
    "ball card"
).split()

EVENTS = "war siege trial treaty voyage project reign study strike festival campaign conflict famine expedition".split()
CENTURIES = tuple(range(11, 20))

NOUNS = tuple(
    pair.split("/")
    for pair in (
        "key/keys boy/boys teacher/teachers dog/dogs report/reports farmer/farmers senator/senators lamp/lamps "
        "doctor/doctors driver/drivers painter/painters guard/guards letter/letters pilot/pilots chef/chefs "
        "cabinet/cabinets author/authors picture/pictures girl/girls friend/friends table/tables car/cars"
    ).split()
)
PREPOSITIONS = ("near", "behind", "beside", "with", "above", "next to", "in front of")
VERBS = (("is", "are"), ("was", "were"), ("has", "have"), ("looks", "look"), ("seems", "seem"))
ADJECTIVES = "old red big new small green nice good".split()

ARGUMENTS = (
    "size name path file data mode line text item list node root index value count width height color label shape "
    "offset limit start stop step key state event time date user group token model layer head batch score weight"
).split()
FUNCTIONS = "load save open close read write send port run make find sort merge split copy move".split()
DESCRIPTIONS = (
    "oil column piece crime population unit dark sector gap population song water tree stone cloud river mountain "
    "sound light paper metal wood glass sand wind fire earth moon star field road bridge window door wall floor"
).split()

CAPITALS = dict(
    pair.split("/")
    for pair in (
        "France/Paris Italy/Rome Japan/Tokyo Germany/Berlin Spain/Madrid England/London Egypt/Cairo Russia/Moscow "
        "China/Beijing Greece/Athens Portugal/Lisbon Austria/Vienna Poland/Warsaw Ireland/Dublin Norway/Oslo "
        "Sweden/Stockholm Denmark/Copenhagen Finland/Helsinki Hungary/Budapest Turkey/Ankara Iran/Tehran Iraq/Baghdad "
        "Cuba/Havana Peru/Lima Kenya/Nairobi Canada/Ottawa Thailand/Bangkok Vietnam/Hanoi Syria/Damascus Chile/Santiago "
        "Ukraine/Kiev Belgium/Brussels"
    ).split()
)
LANDMARKS = {
    "Eiffel Tower": "Paris",
    "Big Ben": "London",
    "Colosseum": "Rome",
    "Kremlin": "Moscow",
    "Prado": "Madrid",
    "Reichstag": "Berlin",
    "Acropolis": "Athens",
    "Forbidden City": "Beijing",
    "Tokyo Tower": "Tokyo",
    "Royal Palace": "Stockholm",
    "Grand Bazaar": "Istanbul",
    "Opera House": "Sydney",
    "Louvre": "Paris",
    "Tower Bridge": "London",
    "Trevi Fountain": "Rome",
    "Brandenburg Gate": "Berlin",
}
LANGUAGES = {
    "France": "French",
    "Italy": "Italian",
    "Japan": "Japanese",
    "Germany": "German",
    "Spain": "Spanish",
    "England": "English",
    "Egypt": "Arabic",
    "Russia": "Russian",
    "China": "Chinese",
    "Greece": "Greek",
    "Portugal": "Portuguese",
    "Poland": "Polish",
    "Norway": "Norwegian",
    "Sweden": "Swedish",
    "Denmark": "Danish",
    "Finland": "Finnish",
    "Hungary": "Hungarian",
    "Turkey": "Turkish",
    "Thailand": "Thai",
    "Vietnam": "Vietnamese",
}
