"""Reports: one page that shows every picture before and after, and tells what was done, how long it took and why not.

The page is a single file without a network: its own style and script, and the pictures as previews. The rooms:

- `previews` makes pictures small, and says how small for how many.
- `page` writes the page: cards, tables and facts, from any source.
- `words` says times, sizes and versions.
- `files` fills it with what became of files; what there is to see of one, `pictures` and `clips` say.
- `quality` fills it with what methods are worth against references.

`page.html`, `page.css` and `page.js` are what the page is made of. Of these rooms only `clips` loads torch.
"""
