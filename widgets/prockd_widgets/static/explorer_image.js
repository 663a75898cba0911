// The image with its heat-map, and the nearest patches below it.
class ExplorerImage extends ExplorerMap {
	imageSection() {
		this.images = this.meta.models.map(m =>
			this.pane(`Image, ${m.name}. Page keys change it.`, 99, c => {
				const [a, b] = [c.width / this.w, c.height / this.h];
				return {
					n: this.N,
					x: n => ((n % this.w) + 0.5) * a,
					y: n => (Math.floor(n / this.w) + 0.5) * b,
					patch: n => this.image * this.N + n,
				};
			}),
		);
		const kinds = [
			['prototype', 'Prototype', 'How much each patch belongs to the prototype'],
			['likeness', 'Like this patch', 'Click a patch: what looks like it, in all images'],
		];
		this.heatKind = segmented('Heat-map of', kinds, '', show => this.set({ show }));
		const styles = [
			[false, 'Raw', 'One colour a patch, as the model sees it'],
			[true, 'Smoothed', 'Interpolated between patches: pretty, but finer than what is known'],
		];
		this.smoothing = segmented('Heat-map drawn', styles, false, smooth => this.set({ smooth }));
		this.slider = opacitySlider(opacity => this.set({ opacity }));
		const [scale, scaleName] = colourBar('assignment');
		Object.assign(this, { scaleName, imageNote: el('figcaption'), nearNote: el('figcaption') });
		this.near = el('div.prk-near', { role: 'group', 'aria-label': 'Nearest patches' });
		const turn = el(
			'span.prk-set',
			{},
			button('‹', 'Previous image (Page Up)', () => this.step(-1)),
			button('›', 'Next image (Page Down)', () => this.step(1)),
		);
		const heat = el('label', {}, 'Heat ', this.slider);
		return el(
			'section.prk-image',
			{},
			el('div.prk-head', {}, this.heatKind.node, this.smoothing.node, heat, turn),
			this.twins(this.images),
			el('div.prk-head', {}, this.imageNote, scale),
			this.nearNote,
			this.near,
		);
	}

	drawImage(i) {
		const c = this.images[i];
		const m = this.image;
		if (!c.fit()) return;
		const ctx = c.start();
		const values = this.heatOf(i, m);
		ctx.imageSmoothingEnabled = true;
		if (values) ctx.filter = 'grayscale(1)';
		this.sheet.image(ctx, m, 0, 0, c.width);
		ctx.filter = 'none';
		if (values) this.sheet.heat(ctx, values, c.width, this);
	}

	thumb(p, side) {
		const picture = el('canvas', { width: side, height: side });
		this.sheet.patch(picture.getContext('2d'), p, 0, 0, side);
		return picture;
	}

	drawNear() {
		const i = this.which;
		const k = this.prototype;
		const near = k >= 0 ? this.stats[i][k]?.near || [] : [];
		const key = [i, k, JSON.stringify(near)].join();
		this.nearNote.textContent = near.length
			? `Nearest patches, one an image${this.meta.grouped ? ', groups in turn' : ''}, and their distance (1 − cosine) to the prototype:`
			: '';
		if (this.nearKey === key) return;
		this.nearKey = key;
		this.near.replaceChildren(
			...near.map(([p, distance], n) => {
				const m = this.at(p);
				const label = `Nearest ${n + 1}: ${this.className(m)}image ${this.meta.ids[m]}, distance ${distance.toFixed(2)}`;
				const thumb = el(
					'button',
					{
						type: 'button',
						title: label,
						onclick: () => this.set({ patch: p, image: m }),
						onpointerenter: e => this.point(p, e),
						onpointerleave: () => this.point(-1),
					},
					this.thumb(p, 96),
					distance.toFixed(2),
				);
				thumb.setAttribute('aria-label', label);
				return thumb;
			}),
		);
	}
}
