"""Level 4: rows of any length side by side through plain blocks, each beginning where its edit first changes something.

Rows are laid out flat, position after position, grouped by prompt and positions. Everything but attention treats the
positions of all rows as one matrix; attention goes group by group, against keys and values of the unedited run that are
never copied. In the last layer only the answer position goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.site import Site
from mechxai.engine.chunk import Chunk, scored
from mechxai.engine.joining import AFTER_ATTENTION, END, INPUT, Join, join_of
from mechxai.engine.placed import Placed, Step, Window, placed, steps
from mechxai.engine.plan import Wave
from mechxai.engine.reach import needs_whole
from mechxai.engine.suffix import embedded
from mechxai.model.plain import PlainBlock, attend
from mechxai.model.plain_door import plain_of


@dataclass
class _Group:
    """Rows of one prompt that run the same positions.

    Attributes:
        prompt: counted in the chunk.
        window: the positions that are run; shrinks to the answer's in the last layer.
        at: the answer position, where the rows may shrink to it.
        rows: the wave's rows, in the order in which they join.
        joins: where each joins, ascending.
        edits: whole site -> edits, rows counted in the group.
        present: how many have joined.
    """

    prompt: int
    window: Window
    at: int | None
    rows: list[int]
    joins: list[Join]
    edits: dict[Site, list[Placed]] = field(default_factory=dict)
    present: int = 0

    @property
    def width(self) -> int:
        return self.window.stop - self.window.start

    @property
    def size(self) -> int:
        return self.present * self.width


def run_fused(chunk: Chunk, wave: Wave) -> Float[Tensor, " row"]:
    """Level 4: the metric of each row of a wave."""
    with torch.no_grad():
        return _Fused(chunk, wave).values()


class _Fused:
    def __init__(self, chunk: Chunk, wave: Wave) -> None:
        self.chunk, self.wave = chunk, wave
        self.model, self.recorded = chunk.model, chunk.recorded
        plain = plain_of(chunk.model)
        if plain is None:
            raise NotImplementedError(f"{chunk.model.name} has no plain blocks")
        self.plain, self.architecture = plain, chunk.model.architecture
        self.device = chunk.model.device
        self.at = chunk.sweep.metric.positions(chunk.batch)
        self.groups = self._groups()
        self.early = self._embedded()

    # Rows ------------------------------------------------------------------------------------------------------------

    def _groups(self) -> list[_Group]:
        cells = self.chunk.sweep.cells
        joins = [join_of(cells[cell], self.architecture) for cell in self.wave.cells]
        found: dict[tuple[int, int, int], list[int]] = {}
        for row, (prompt, start, stop) in enumerate(zip(self.wave.prompts, self.wave.starts, self.wave.stops, strict=True)):
            found.setdefault((prompt - self.chunk.prompts.start, start, stop), []).append(row)
        groups = []
        for (prompt, start, stop), rows in found.items():
            rows.sort(key=lambda row: joins[row])
            chosen = [self.recorded.cells[self.wave.cells[row]] for row in rows]
            edits = placed(chosen, [prompt] * len(rows), self.chunk.batch)
            whole = any(needs_whole(one) for cell in chosen for one in cell)
            at = int(self.at[prompt, 0]) if self.at is not None and self.at.shape[1] == 1 and not whole else None
            groups.append(_Group(prompt, Window(start, stop), at, rows, [joins[row] for row in rows], edits))
        return groups

    def _embedded(self) -> dict[int, Tensor]:
        """Group -> the residual stream before block 0 of rows that are edited before it, ``[row, pos, d_model]``."""
        found = {}
        for number, group in enumerate(self.groups):
            rows = {edit.row for site, edits in group.edits.items() if site.row.entry == "embed" for edit in edits}
            if rows:
                found[number] = embedded(self.chunk, group.edits, [group.prompt] * (max(rows) + 1))
        return found

    def _joining(self, layer: int, stage: int) -> dict[int, tuple[Join, int, int]]:
        """Group -> the rows that join at a place: where, first and after the last."""
        found = {}
        for number, group in enumerate(self.groups):
            last = group.present
            while last < len(group.rows) and group.joins[last].layer == layer and group.joins[last].stage == stage:
                last += 1
            if last > group.present:
                found[number] = (group.joins[group.present], group.present, last)
        return found

    def _grown(self, flat: Tensor, new: dict[int, Tensor]) -> Tensor:
        """The flat rows with new ones behind those of their group."""
        if not new:
            return flat
        parts, first = [], 0
        for number, group in enumerate(self.groups):
            if group.size:
                parts.append(flat[first : first + group.size])
                first += group.size
            if number in new:
                parts.append(new[number].reshape(-1, flat.shape[-1]))
                group.present += len(new[number])
        return torch.cat(parts)

    # The pass --------------------------------------------------------------------------------------------------------

    def values(self) -> Tensor:
        """The metric of each row, in the order of the wave."""
        last = len(self.plain.blocks) - 1
        flat = self.recorded.base.residuals[0].new_empty(0, self.recorded.base.residuals[0].shape[-1])
        for layer, block in enumerate(self.plain.blocks):
            flat = self._grown(flat, self._begun(layer))
            after = self._attention(layer, block, flat, shrink=layer == last)
            after = self._grown(after, self._moved(layer, AFTER_ATTENTION, self._after_attention))
            if block.mlp_in is not None and not block.parallel:
                after = self._mlp(layer, block, after, after)
            self._edit(Site("resid_post", layer), after)
            flat = self._grown(after, self._moved(layer, END, self._ended))
        return self._scored(self.plain.final(flat))

    def _begun(self, layer: int) -> dict[int, Tensor]:
        """Rows that begin at a block's input."""
        new = {}
        for number, (_, first, last) in self._joining(layer, INPUT).items():
            group = self.groups[number]
            rows = self._of_base(group, self.recorded.base.residuals[layer], last - first)
            if number in self.early:
                given = self.early[number][first:last, group.window.start : group.window.stop]
                rows = torch.cat([given, rows[len(given) :]])
            self._make(group, Site("resid_pre", layer), rows, first)
            new[number] = rows
        return new

    def _moved(
        self, layer: int, stage: int, begin: Callable[[int, _Group, Join, Tensor, int], Tensor]
    ) -> dict[int, Tensor]:
        """Rows that begin within a block: what the unedited run has there, moved by what the edit changes."""
        new = {}
        for number, (_, first, last) in self._joining(layer, stage).items():
            group = self.groups[number]
            parts = []
            while first < last:  # rows of the same site together
                join = group.joins[first]
                n = sum(other == join for other in group.joins[first:last])
                parts.append(begin(layer, group, join, self._of_base_site(group, join, n), first))
                first += n
            new[number] = torch.cat(parts)
        return new

    def _after_attention(self, layer: int, group: _Group, join: Join, values: Tensor, first: int) -> Tensor:
        """The residual stream after attention of rows edited in `z`, `result`, `attn_out`, `resid_mid` or the MLP."""
        mid = self._of_base(group, self.recorded.base.acts[Site("resid_mid", layer)], len(values))
        if not join.site:
            return mid
        if join.site == "resid_mid":
            self._make(group, Site("resid_mid", layer), mid, first)
            return mid
        return mid + self._difference(layer, group, join, values, first)

    def _ended(self, layer: int, group: _Group, join: Join, values: Tensor, first: int) -> Tensor:
        """The block's output of rows edited in `mlp_out`, `resid_post`, or where nothing after it in the block reads."""
        after = self._of_base(group, self.recorded.base.residuals[layer + 1], len(values))
        if join.site == "resid_post":
            self._make(group, Site("resid_post", layer), after, first)
            return after
        return after + self._difference(layer, group, join, values, first)

    def _difference(self, layer: int, group: _Group, join: Join, values: Tensor, first: int) -> Tensor:
        """What the edit of a site adds to the residual stream, ``[row, pos, d_model]``."""
        edited = values.clone()
        self._make(group, Site(join.site, layer), edited, first)
        moved = edited - values
        if join.site == "z":
            return (moved.flatten(0, 1).flatten(1) @ self.plain.blocks[layer].o.weight).view(*moved.shape[:2], -1)
        return moved.sum(2) if join.site == "result" else moved

    def _attention(self, layer: int, block: PlainBlock, flat: Tensor, *, shrink: bool) -> Tensor:
        """The residual stream after attention; of a parallel block, its output."""
        if not len(flat):
            return flat if not shrink else flat[self._shrunk()]
        normalized = block.norm1(flat)
        k, v = (self._by_head(part(normalized)) for part in (block.k, block.v))
        self._edit(Site("k", layer), k)
        self._edit(Site("v", layer), v)
        own = [(group.window, group.size) for group in self.groups]
        kept = self._shrunk() if shrink else None
        if kept is not None:
            flat, normalized = flat[kept], normalized[kept]
        q = self._by_head(block.q(normalized))
        self._edit(Site("q", layer), q)
        z = self._attended(layer, block, q, keys=k, values=v, own=own)
        self._edit(Site("z", layer), z)
        if any(Site("result", layer) in group.edits for group in self.groups):
            attn_out = self._results(layer, block, z)
        else:
            attn_out = block.o(z.flatten(1))
        self._edit(Site("attn_out", layer), attn_out)
        after = flat + attn_out
        if block.parallel:
            return self._mlp(layer, block, flat, after)
        self._edit(Site("resid_mid", layer), after)
        return after

    def _attended(
        self, layer: int, block: PlainBlock, q: Tensor, *, keys: Tensor, values: Tensor, own: list[tuple[Window, int]]
    ) -> Tensor:
        """`z`, flat, group by group."""
        kept = self.recorded.base.kept
        parts, first, first_key = [q[:0]], 0, 0
        for group, (window, size) in zip(self.groups, own, strict=True):
            if not group.present:
                continue
            mine = slice(first_key, first_key + size)
            shape = (group.present, window.stop - window.start, -1, self.plain.d_head)
            k, v = keys[mine].view(shape), values[mine].view(shape)
            queries = q[first : first + group.size].view(group.present, group.width, -1, self.plain.d_head)
            if block.rotary is not None:
                k, queries = block.rotary(k, window.start), block.rotary(queries, group.window.start)
            z = attend(
                queries.transpose(1, 2) * block.scale,
                k.transpose(1, 2),
                v.transpose(1, 2),
                prefix=(kept.keys[layer][group.prompt][:, : window.start], kept.values[layer][group.prompt][:, : window.start]),
                offset=group.window.start - window.start,
                scores_edit=self._pattern_edit(group, Site("attn_scores", layer)),
                pattern_edit=self._pattern_edit(group, Site("pattern", layer)),
            )
            parts.append(z.reshape(group.size, -1, self.plain.d_head))
            first, first_key = first + group.size, first_key + size
        return torch.cat(parts)

    def _results(self, layer: int, block: PlainBlock, z: Tensor) -> Tensor:
        """`attn_out` as the sum of what each head writes, edits made in those."""
        by_source = block.o.weight.view(self.plain.n_heads, self.plain.d_head, -1)
        result = torch.einsum("rhe,hed->rhd", z, by_source)
        self._edit(Site("result", layer), result)
        total = result.sum(1)
        return total if block.o.bias is None else total + block.o.bias

    def _mlp(self, layer: int, block: PlainBlock, read: Tensor, after: Tensor) -> Tensor:
        """``after`` with the MLP's output added."""
        if block.mlp_in is None or block.mlp_out is None or not len(read):
            return after
        normalized = block.norm2(read)
        pre = block.mlp_in(normalized)
        self._edit(Site("mlp_pre", layer), pre)
        post = block.post(pre, normalized)
        self._edit(Site("mlp_post", layer), post)
        mlp_out = block.mlp_out(post)
        self._edit(Site("mlp_out", layer), mlp_out)
        return after + mlp_out

    # Pieces ----------------------------------------------------------------------------------------------------------

    def _of_base(self, group: _Group, whole: Tensor, n_rows: int) -> Tensor:
        """Rows of the unedited run's activation in the group's window, to be written into."""
        part = whole[group.prompt, group.window.start : group.window.stop]
        return part.expand(n_rows, *part.shape).clone()

    def _of_base_site(self, group: _Group, join: Join, n_rows: int) -> Tensor:
        """The unedited values of the site that is edited where rows join; of a residual stream, only their number."""
        whole = self.recorded.base.acts.get(Site(join.site, join.layer)) if join.site else None
        return self.recorded.base.residuals[0].new_empty(n_rows) if whole is None else self._of_base(group, whole, n_rows)

    def _by_head(self, flat: Tensor) -> Tensor:
        return flat.view(len(flat), -1, self.plain.d_head)

    def _make(self, group: _Group, site: Site, rows: Tensor, first: int) -> None:
        """Makes the edits of rows that join, the first of which is number ``first`` of the group, in place."""
        for step in self._steps(group, site, range(first, first + len(rows))):
            step(rows)

    def _edit(self, site: Site, flat: Tensor) -> None:
        """Makes the edits of a site in all rows that were there before it, in place."""
        first = 0
        for group in self.groups:
            rows = flat[first : first + group.size].view(group.present, group.width, *flat.shape[1:])
            first += group.size
            if site in group.edits:
                before = [edit.row for edit in group.edits[site] if not _at_join(group.joins[edit.row], site)]
                for step in self._steps(group, site, range(group.present), only=frozenset(before)):
                    step(rows)

    def _pattern_edit(self, group: _Group, site: Site) -> Callable[[Tensor], Tensor] | None:
        made = self._steps(group, site, range(group.present))
        if not made:
            return None

        def function(pattern: Tensor) -> Tensor:
            for step in made:
                step(pattern)
            return pattern

        return function

    def _steps(
        self, group: _Group, site: Site, rows: range, *, only: frozenset[int] | None = None
    ) -> Sequence[Step]:
        """What edits a site in some rows of a group, which are counted from the first of them."""
        found = [
            Placed(edit.row - rows.start, edit.prompt, edit.one, edit.pos)
            for edit in group.edits.get(site, ())
            if edit.row in rows and (only is None or edit.row in only)
        ]
        return steps(site, found, group.window, self.device) if found else ()

    def _shrunk(self) -> Tensor | None:
        """Lets groups go on at the answer position only; gives the flat positions that go on."""
        parts, first = [], 0
        for group in self.groups:
            places = first + torch.arange(group.size, device=self.device)
            first += group.size
            if group.at is not None:
                places = places.view(group.present, group.width)[:, group.at - group.window.start]
                group.window = Window(group.at, group.at + 1)
            parts.append(places)
        return torch.cat(parts)

    def _scored(self, flat: Tensor) -> Tensor:
        """The metric of each row from its final, normalised residual stream."""
        base = self.recorded.base
        finals: list[Tensor] = []
        rows: list[int] = []
        first = 0
        for group in self.groups:
            final = flat[first : first + group.size].view(group.present, group.width, -1)
            first += group.size
            if self.at is None:
                whole = base.final[group.prompt].expand(group.present, -1, -1).clone()
                whole[:, group.window.start : group.window.stop] = final
                final = whole
            elif group.at is None:
                final = final[:, self.at[group.prompt].to(self.device) - group.window.start]
            finals.append(final)
            rows += group.rows
        prompts = torch.tensor([self.wave.prompts[row] - self.chunk.prompts.start for row in rows], device=self.device)
        found = scored(
            self.model, self.chunk.sweep.metric, self.chunk.batch, final=torch.cat(finals), prompts=prompts
        )
        return found[torch.tensor(rows, device=self.device).argsort()]


def _at_join(join: Join, site: Site) -> bool:
    """Whether a row's edit of a site was made when it joined."""
    return join.layer == site.layer and (join.site == site.name or (join.stage == INPUT and site.name == "resid_pre"))
