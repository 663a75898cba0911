// PatchLens: click a patch in any image, see where the others look alike; two models see the same patches.
class Lens {
	constructor(model, host, sheet) {
		Object.assign(this, { model, host, sheet, page: 0, cursor: 0, tiles: [] });
		const meta = model.get('meta');
		this.meta = meta;
		[this.h, this.w] = meta.grid;
		this.N = this.h * this.w;
		this.shown = shownOf(meta);
		this.codes = meta.models.map((m, i) => new Codes(model.get('codes')[i], m.steps, meta.patches));
		this.redraw = soon(() => this.draw());
		this.build();
		const changed = () => this.redraw();
		model.on('change:patch change:smooth change:opacity change:order', changed);
		this.ends = [
			watch(this.root, changed, changed),
			() => model.off('change:patch change:smooth change:opacity change:order', changed),
		];
		this.redraw();
	}
	get patch() {
		return this.model.get('patch');
	}
	set(name, value) {
		this.model.set(name, value);
		this.model.save_changes();
	}
	pick(p) {
		if (!this.shown[p]) return;
		this.page = this.cursor = 0;
		this.set('patch', p);
	}
	build() {
		const { meta } = this;
		this.smoothing = segmented(
			'Heat-map drawn',
			[
				[false, 'Raw', 'One colour a patch'],
				[true, 'Smoothed', 'Interpolated between patches'],
			],
			false,
			on => this.set('smooth', on),
		);
		this.order = segmented(
			'Order',
			[
				['alike', 'Most alike first'],
				['given', 'As given'],
			],
			'alike',
			order => {
				this.page = 0;
				this.set('order', order);
			},
		);
		this.opacity = opacitySlider(opacity => this.set('opacity', opacity));
		this.pager = pageButtons(this);
		this.query = new Canvas('The image of the patch. Arrows move the patch, page keys change the image.');
		this.query.over.addEventListener('click', e =>
			this.pick(this.inside(e, this.query, { x: 0, y: 0, side: this.query.width, m: this.image() })),
		);
		this.query.over.addEventListener('keydown', e => {
			const n = this.patch % this.N;
			const step = ARROWS[e.key];
			const turn = { PageUp: -1, PageDown: 1 }[e.key];
			const M = meta.patches / this.N;
			if (step)
				this.pick(
					this.patch -
						n +
						clamp(Math.floor(n / this.w) + step[1], 0, this.h - 1) * this.w +
						clamp((n % this.w) + step[0], 0, this.w - 1),
				);
			else if (turn) this.pick(((this.image() + turn + M) % M) * this.N + n);
			else return;
			e.preventDefault();
		});
		this.grids = meta.models.map(m => {
			const c = new Canvas(`Images, ${m.name}. Arrows move over the images, Enter takes the patch that is most alike.`);
			c.over.addEventListener('click', e => {
				const r = c.over.getBoundingClientRect();
				const x = e.clientX - r.left;
				const y = e.clientY - r.top;
				const tile = this.tiles.find(t => x >= t.x && y >= t.y && x < t.x + t.side && y < t.y + t.side);
				if (tile) this.pick(this.inside(e, c, tile));
			});
			c.over.addEventListener('keydown', e => {
				const step = ARROWS[e.key];
				const across = this.tiles.filter(t => t.y === 0).length;
				if (step) this.cursor = clamp(this.cursor + step[0] + step[1] * across, 0, this.tiles.length - 1);
				else if (e.key === 'Enter') this.pick(this.tiles[this.cursor].best);
				else return;
				e.preventDefault();
				this.redraw();
			});
			return c;
		});
		this.note = el('figcaption');
		this.live = el('span', { role: 'status', 'aria-live': 'polite' });
		this.root = el(
			'div',
			{ className: 'prk prk-lens', role: 'region', 'aria-label': 'Patch lens', onkeydown: e => e.stopPropagation() },
			el(
				'div.prk-bar',
				{},
				el('span', {}, 'Click a patch in any image'),
				this.smoothing.node,
				el('label', {}, 'Heat ', this.opacity),
				colourBar('cosine')[0],
				el('span.prk-space', {}),
				this.order.node,
				el('span.prk-set', {}, ...this.pager),
			),
			el(
				'div.prk-panes',
				{},
				el('figure.prk-query', {}, el('h3', {}, 'The patch'), this.query.node, this.note),
				...meta.models.map((m, i) => el('figure', {}, el('h3', {}, `What is like it: ${m.name}`), this.grids[i].node)),
			),
			el('div.prk-status', {}, this.live, el('span.prk-space', {}), meta.note ? el('strong', {}, meta.note) : null),
		);
		this.root.setAttribute('data-lm-suppress-shortcuts', 'true');
		this.host.append(this.root);
	}
	// kept until another patch is asked
	like(p) {
		if (this.asked !== p) this.liked = this.codes.map(codes => codes.like(p));
		this.asked = p;
		return this.liked;
	}
	image() {
		return Math.floor(this.patch / this.N);
	}
	// the patch of image m under the pointer
	inside(e, c, { x, y, side, m }) {
		const r = c.over.getBoundingClientRect();
		const cell = (at, cells) => clamp(Math.floor((at / side) * cells), 0, cells - 1);
		return m * this.N + cell(e.clientY - r.top - y, this.h) * this.w + cell(e.clientX - r.left - x, this.w);
	}
	// images with their most alike patch, in the first model's order for both
	sort(like) {
		const best = bestOfEach(like, this.N);
		return this.model.get('order') === 'alike' ? best.sort((a, b) => like[b] - like[a]) : best;
	}
	draw() {
		if (!this.root.clientWidth) return;
		const { model, meta, patch, N } = this;
		const like = this.like(patch);
		const side = 104;
		const gap = 5;
		const rows = 3;
		const look = { smooth: model.get('smooth'), opacity: model.get('opacity') };
		const order = this.sort(like[0]);
		const m = this.image();
		this.root.classList.toggle('prk-dark', dark(this.root));
		this.smoothing.show(look.smooth);
		this.order.show(model.get('order'));
		this.opacity.value = look.opacity;
		this.query.fit();
		this.sheet.image(this.query.start(), m, 0, 0, this.query.width);
		this.boxed(this.query.start(this.query.over), patch, 0, 0, this.query.width, 3);
		this.grids.forEach((c, i) => {
			if (!c.fit(rows * (side + gap))) return;
			const across = Math.max(1, Math.floor((c.width + gap) / (side + gap)));
			const each = across * rows;
			const pages = Math.max(1, Math.ceil(order.length / each));
			this.page = clamp(this.page, 0, pages - 1);
			const ctx = c.start();
			const over = c.start(c.over);
			this.tiles = order.slice(this.page * each, (this.page + 1) * each).map((p, n) => {
				const tile = {
					x: (n % across) * (side + gap),
					y: Math.floor(n / across) * (side + gap),
					side,
					m: Math.floor(p / N),
					best: p,
				};
				const values = like[i].subarray(tile.m * N, (tile.m + 1) * N);
				ctx.filter = 'grayscale(1)';
				this.sheet.image(ctx, tile.m, tile.x, tile.y, side);
				ctx.filter = 'none';
				this.sheet.heat(ctx, values, side, { ...look, x: tile.x, y: tile.y });
				let top = 0;
				for (let q = 1; q < N; q++) if (values[q] > values[top]) top = q;
				this.boxed(over, top, tile.x, tile.y, side, 1);
				if (n === this.cursor && document.activeElement === c.over)
					box(over, tile.x + 1, tile.y + 1, side - 2, side - 2, 2);
				return tile;
			});
			showPage(this.pager, this.page, pages);
		});
		const n = patch % N;
		const label = meta.labels[m];
		this.note.textContent = `${label >= 0 ? `${meta.classes[label]}, ` : ''}image ${meta.ids[m]}, row ${Math.floor(n / this.w)}, column ${n % this.w}; maps ${look.smooth ? 'smoothed' : `raw, ${this.h} × ${this.w} patches`}`;
		const far = like.map(
			(values, i) => `${meta.models[i].name}: ${count(values.reduce((sum, v) => sum + (v > 0.5), 0) - 1)}`,
		);
		const text = `Patches with a cosine above 0.5, of ${count(this.shown.reduce((a, b) => a + b, 0))}: ${far.join(', ')}`;
		if (this.live.textContent !== text) this.live.textContent = text;
	}
	boxed(ctx, p, x, y, side, line) {
		const n = p % this.N;
		const a = side / this.w;
		const b = side / this.h;
		box(ctx, x + (n % this.w) * a, y + Math.floor(n / this.w) * b, a, b, line);
	}
	destroy() {
		for (const end of this.ends) end();
		this.root.remove();
	}
}

async function render({ model, el: host }) {
	const lens = new Lens(model, host, await openSheet(model));
	return () => lens.destroy();
}
export default { render };
