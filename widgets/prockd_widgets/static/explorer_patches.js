// The grid of patches, or of images where likeness is asked for.
class ExplorerPatches extends ExplorerImage {
	patchSection() {
		this.cells = [];
		this.gridTitle = el('h3');
		this.grid = this.pane('Patches.', 60, () => ({
			n: this.cells.length,
			x: i => this.cells[i].x + this.cells[i].side / 2,
			y: i => this.cells[i].y + this.cells[i].side / 2,
			patch: i => this.cells[i].patch,
		}));
		this.pager = pageButtons(this);
		const head = el('div.prk-head', {}, this.gridTitle, el('span.prk-set', {}, ...this.pager));
		return el('section.prk-patches', {}, head, this.grid.node);
	}

	drawGrid() {
		const c = this.grid;
		const tiles = this.likeness && this.patch >= 0;
		if (!c.fit(304)) return;
		const i = this.which;
		const k = this.prototype;
		const side = tiles ? 98 : 56;
		const gap = 4;
		const across = Math.max(1, Math.floor((c.width + gap) / (side + gap)));
		const each = across * Math.floor((304 + gap) / (side + gap));
		const all = tiles ? this.mostAlike(i) : this.strongest(i, k);
		const pages = Math.max(1, Math.ceil(all.length / each));
		this.page = clamp(this.page, 0, pages - 1);
		const ctx = c.start();
		const { smooth, opacity } = this;
		this.cells = all.slice(this.page * each, (this.page + 1) * each).map((p, at) => {
			const x = (at % across) * (side + gap);
			const y = Math.floor(at / across) * (side + gap);
			const m = this.at(p);
			if (tiles) {
				ctx.filter = 'grayscale(1)';
				this.sheet.image(ctx, m, x, y, side);
				ctx.filter = 'none';
				this.sheet.heat(ctx, this.heatOf(i, m), side, { smooth, opacity, x, y });
				const n = p % this.N;
				const [a, b] = [side / this.w, side / this.h];
				box(ctx, x + (n % this.w) * a, y + Math.floor(n / this.w) * b, a, b, 1);
			} else this.sheet.patch(ctx, p, x, y, side);
			return { patch: p, x, y, side };
		});
		const what = this.selected.length
			? 'selected patches'
			: k >= 0
				? `patches of ${this.names()[k]}`
				: 'patches from all over';
		this.gridTitle.textContent = tiles
			? 'All images, most alike first'
			: `${count(all.length)} ${what}${k >= 0 ? ', strongest first' : ''}`;
		showPage(this.pager, this.page, pages);
	}
}
