// Patches of the prototype in focus: how strongly they belong to it, and a grid of them; images where likeness is asked.
const GRID_PX = 304;

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
		const of = this.meta.groups ? 'group' : 'image';
		const options = Object.entries(STRIPS).map(([strip, [text, about]]) => [
			strip,
			strip === 'owners' ? `One ${this.meta.groups ? 'a' : 'an'} ${of}` : text,
			strip === 'owners' ? `${about} ${of}` : about,
		]);
		this.strips = segmented('Which patches', options, 'top', strip => {
			Object.assign(this, { strip, page: 0 });
			this.redraw();
		});
		const head = el(
			'div.prk-head',
			{},
			this.gridTitle,
			el('span.prk-set', {}, this.strips.node, el('span.prk-set', {}, ...this.pager)),
		);
		this.histogramNote = el('span.prk-soft');
		this.bars = this.brush();
		return el('section.prk-patches', {}, head, this.bars.node, this.histogramNote, this.grid.node);
	}

	// the histogram: a drag selects the patches between two values, arrows move the lower one
	brush() {
		const c = new Canvas('Histogram of assignment. A drag selects, arrows move the lower end, Enter selects above it.');
		const value = e => {
			const r = c.over.getBoundingClientRect();
			return clamp((e.clientX - r.left) / r.width, 0, 1);
		};
		let from = null;
		const listen = (event, f) => c.over.addEventListener(event, f);
		listen('pointerdown', e => {
			if (e.button) return;
			from = value(e);
			c.over.setPointerCapture(e.pointerId);
		});
		listen('pointermove', e => {
			const at = value(e);
			c.over.title = `${((Math.floor(at * BINS) / BINS) * this.counted().end).toFixed(2)} and more`;
			if (from === null) return;
			this.range = [Math.min(from, at), Math.max(from, at)];
			this.drawBars();
		});
		listen('pointerup', e => {
			if (from === null) return;
			const [low, high] = [Math.min(from, value(e)), Math.max(from, value(e))];
			from = null;
			const [first, last] = [Math.floor(low * BINS) / BINS, Math.ceil(high * BINS) / BINS]; // whole bars
			this.brushed(first, high - low < 0.01 ? 1 : last);
		});
		listen('pointercancel', () => {
			from = null;
		});
		listen('keydown', e => {
			const step = ARROWS[e.key]?.[0];
			const low = this.range?.[0] ?? 0.5;
			if (step) this.range = [clamp(Math.round(low * BINS + step) / BINS, 0, 1 - 1 / BINS), 1];
			else if (e.key === 'Enter') this.brushed(...(this.range || [0.5, 1]));
			else return;
			e.preventDefault();
			this.drawBars();
		});
		return c;
	}

	// low and high in 0..1 of the histogram's width
	brushed(low, high) {
		const { values, end } = this.counted();
		const patches = [];
		for (let p = 0; p < this.P; p++) {
			const at = values[p] / end;
			if (at > 0 && at >= low && at <= high + 1e-6) patches.push(p);
		}
		this.select(patches);
		this.range = [low, high];
	}

	// the histogram of what is in focus, kept until something of it changes
	counted() {
		const [i, k] = [this.which, this.prototype];
		const key = [i, k, this.likeness && this.patch, this.numKept, JSON.stringify(this.filter)].join();
		if (this.countedKey !== key || this.countedOf !== this.soft) {
			Object.assign(this, { countedKey: key, countedOf: this.soft, countedAs: this.histogram(i, k) });
		}
		return this.countedAs;
	}

	drawBars() {
		const c = this.bars;
		if (!c.fit(44)) return;
		const ctx = c.start();
		const over = c.start(c.over);
		const { all, mine, end } = this.counted();
		const most = Math.sqrt(Math.max(1, ...all));
		const { style } = this;
		const wide = c.width / BINS;
		for (const [counts, colour] of [
			[all, style.line],
			[mine, style.blue],
		]) {
			ctx.fillStyle = colour;
			for (let b = 0; b < BINS; b++) {
				const high = counts[b] ? Math.max(2, (40 * Math.sqrt(counts[b])) / most) : 0;
				ctx.fillRect(b * wide + 0.5, 43 - high, wide - 1, high);
			}
		}
		ctx.fillStyle = style.line;
		ctx.fillRect(0, 43, c.width, 1);
		if (this.range) {
			const [low, high] = this.range;
			box(over, low * c.width + 1, 1, Math.max(3, (high - low) * c.width - 2), 42, 1);
		}
		const what = this.likeness ? 'Cosine to the box' : `Assignment, 0 to ${end.toFixed(2)}`;
		this.histogramNote.textContent = `${what}${this.likeness ? '' : '; blue: patches that prefer it'}. Heights are square roots. Drag to select.`;
	}

	drawGrid() {
		const c = this.grid;
		const tiles = this.likeness;
		this.strips.node.hidden = tiles;
		this.strips.show(this.strip);
		if (!c.fit(GRID_PX)) return;
		const i = this.which;
		const k = this.prototype;
		const ctx = c.start();
		const pair = this.paired && !tiles;
		const side = tiles ? 98 : 56;
		const across = Math.max(1, Math.floor((c.width + 4) / (side + 4)));
		const rows = pair ? 2 : Math.floor((GRID_PX + 4) / (side + 4));
		const each = across * rows;
		const all = tiles ? this.mostAlike(i) : this.strongest(i, k);
		const pages = Math.max(1, Math.ceil(all.length / each));
		this.page = clamp(this.page, 0, pages - 1);
		const first = pair ? 18 : 0;
		const cut = patches => Array.from(patches.slice(this.page * each, (this.page + 1) * each));
		this.cells = this.place(ctx, cut(all), { tiles, side, across, top: first });
		if (pair) {
			const other = inStrip(this.sorted(i, this.pinned), this.strip, p => this.at(p));
			const top = first + 2 * (side + 4) + 18;
			this.cells.push(...this.place(ctx, cut(other), { tiles, side, across, top }));
			Object.assign(ctx, { font: '600 12px system-ui, sans-serif', fillStyle: this.style.ink });
			ctx.fillText(this.names()[k], 0, 12);
			ctx.fillText(this.names()[this.pinned], 0, top - 6);
		}
		this.gridTitle.textContent = this.titleOfGrid(all.length, tiles);
		showPage(this.pager, this.page, pages);
	}

	// patches of a prototype, whatever is selected, strongest first
	sorted(i, k) {
		return falling(this.mine(i, k), this.shares(i, k).values);
	}

	titleOfGrid(number, tiles) {
		const k = this.prototype;
		if (tiles) return 'All images, most alike first';
		if (this.selected.length) return `${count(number)} selected patches`;
		return `${count(number)} ${k >= 0 ? `patches of ${this.names()[k]}` : 'patches from all over'}`;
	}

	// draws patches, or images with their heat, in rows from a height on
	place(ctx, patches, { tiles, side, across, top }) {
		const { smooth, opacity } = this;
		return patches.map((p, at) => {
			const x = (at % across) * (side + 4);
			const y = top + Math.floor(at / across) * (side + 4);
			const m = this.at(p);
			if (tiles) {
				ctx.filter = 'grayscale(1)';
				this.sheet.image(ctx, m, x, y, side);
				ctx.filter = 'none';
				this.sheet.heat(ctx, this.heatOf(this.which, m), side, { smooth, opacity, x, y });
				const n = p % this.N;
				const [a, b] = [side / this.w, side / this.h];
				box(ctx, x + (n % this.w) * a, y + Math.floor(n / this.w) * b, a, b, 1);
			} else this.sheet.patch(ctx, p, x, y, side);
			return { patch: p, x, y, side };
		});
	}
}
