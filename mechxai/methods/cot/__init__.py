"""Chains of thought: does the stated reasoning drive the answer?"""
