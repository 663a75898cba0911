// The image: heat of one prototype or two, likeness, or all prototypes in colours; nearest patches; a picture of one's own.
class ExplorerImage extends ExplorerMap {
	// one pane a model; with one model a second pane for the prototype that is pinned
	imageSection() {
		this.panes = this.two ? [0, 1] : [0, 0];
		this.images = this.panes.map(i =>
			this.pane(`Image, ${this.meta.models[i].name}. Page keys change it.`, 99, c => {
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
			['all', 'All', 'Every patch in the colour of its prototype; the pointer names it'],
		];
		this.heatKind = segmented('Heat-map of', kinds, '', show => this.set({ show }));
		const styles = [
			[false, 'Raw', 'One colour a patch, as the model sees it'],
			[true, 'Smoothed', 'Interpolated between patches: pretty, but finer than what is known'],
		];
		this.smoothing = segmented('Heat-map drawn', styles, false, smooth => this.set({ smooth }));
		this.slider = opacitySlider(opacity => this.set({ opacity }));
		const [scale, scaleName, scaleEnd] = colourBar('assignment');
		Object.assign(this, { scale, scaleName, scaleEnd, imageNote: el('figcaption'), nearNote: el('figcaption') });
		this.near = el('div.prk-near', { role: 'group', 'aria-label': 'Nearest patches' });
		const turn = el(
			'span.prk-set',
			{},
			button('‹', 'Previous image (Page Up)', () => this.step(-1)),
			button('›', 'Next image (Page Down)', () => this.step(1)),
		);
		const heat = el('label', {}, 'Heat ', this.slider);
		this.captions = this.images.map((_, j) => el('div.prk-whose', {}, this.two ? this.meta.models[j].name : ''));
		this.figures = this.images.map((c, j) => el('figure', {}, this.captions[j], c.node));
		return el(
			'section.prk-image',
			{},
			el('div.prk-head', {}, this.heatKind.node, this.smoothing.node, heat, turn),
			el('div.prk-twins', {}, ...this.figures),
			el('div.prk-head', {}, this.imageNote, el('span.prk-set', {}, scale, ...this.ownButton())),
			this.nearNote,
			this.near,
		);
	}

	// a picture of one's own, chosen here or dropped anywhere on the explorer
	ownButton() {
		const chosen = e => this.lookAt(e.target.files[0]);
		const field = el('input', {
			type: 'file',
			accept: 'image/*',
			hidden: true,
			onchange: chosen,
			'aria-label': 'Own picture',
		});
		return [
			button('Own picture…', 'Ask with a picture of your own; it can be dropped here too', () => field.click()),
			field,
		];
	}

	async lookAt(file) {
		if (!file) return;
		if (!this.meta.kernel) return this.tell('A picture of your own needs the notebook that made this page.');
		const { name } = file;
		try {
			const bitmap = await createImageBitmap(file);
			const zoom = Math.min(1, 1024 / Math.max(bitmap.width, bitmap.height));
			const small = new OffscreenCanvas(Math.ceil(bitmap.width * zoom), Math.ceil(bitmap.height * zoom));
			small.getContext('2d').drawImage(bitmap, 0, 0, small.width, small.height);
			const blob = await small.convertToBlob({ type: 'image/png' });
			this.tell(`${name}: asking the kernel…`);
			this.model.send({ do: 'look', name }, undefined, [await blob.arrayBuffer()]);
		} catch {
			this.tell(`${name} is no picture that this browser can read.`);
		}
	}

	// the kernel looked at it
	async readOwnPicture() {
		this.readOwn();
		this.readBanks();
		this.readFilter();
		if (this.own) this.sheet.own = await createImageBitmap(new Blob([u8(this.own.sheet)], { type: 'image/webp' }));
		this.redraw();
	}

	// whether a second prototype is shown beside the one in focus
	get paired() {
		return !this.two && this.pinned >= 0 && this.pinned !== this.prototype && this.model.get('show') === 'prototype';
	}

	pin() {
		this.pinned = this.pinned >= 0 ? -1 : this.prototype;
		this.redraw();
	}

	drawImages() {
		this.root.classList.toggle('prk-pair', this.paired);
		this.figures.forEach((figure, j) => {
			figure.hidden = j > 0 && !this.two && !this.paired;
			if (!this.two) this.captions[j].textContent = this.paired ? this.names()[j ? this.pinned : this.prototype] : '';
			this.captions[j].hidden = !this.captions[j].textContent;
			if (!figure.hidden) this.drawImage(j);
		});
		const all = this.model.get('show') === 'all';
		this.scale.hidden = this.smoothing.node.hidden = all;
		this.scaleName.textContent = this.likeness ? 'cosine' : 'assignment';
		this.scaleEnd.textContent = this.likeness ? '1' : this.heatEnd().toFixed(2);
		this.images[0].over.setAttribute('aria-description', this.imageNote.textContent);
	}

	// which prototype pane j shows
	shownIn(j) {
		return j && !this.two ? this.pinned : this.focus(this.panes[j]);
	}

	// where the scale of assignments ends: at the strongest patch of all images, for what is shown side by side alike
	heatEnd() {
		const ends = this.panes.map((i, j) =>
			this.figures[j].hidden || this.shownIn(j) < 0 ? 0 : this.most(i, this.shownIn(j)),
		);
		return Math.max(...ends) || 1;
	}

	drawImage(j) {
		const c = this.images[j];
		const i = this.panes[j];
		const m = this.image;
		if (!c.fit()) return;
		const ctx = c.start();
		const all = this.model.get('show') === 'all';
		const values = all ? null : this.heatOf(i, m, this.shownIn(j));
		const end = this.likeness ? 1 : this.heatEnd();
		ctx.imageSmoothingEnabled = true;
		if (values || all) ctx.filter = 'grayscale(1)';
		this.sheet.image(ctx, m, 0, 0, c.width);
		ctx.filter = 'none';
		if (values)
			this.sheet.heat(
				ctx,
				values.map(v => v / end),
				c.width,
				this,
			);
		if (all) this.drawParts(ctx, c, i);
	}

	// every patch in the colour of its prototype, with lines between prototypes
	drawParts(ctx, c, i) {
		const { label } = this.soft[i];
		const [a, b] = [c.width / this.w, c.height / this.h];
		const of = n => label[this.image * this.N + n];
		ctx.save();
		for (let n = 0; n < this.N; n++) {
			if (of(n) === NONE) continue;
			const [colour] = styleOf(this.hue(i, of(n)));
			ctx.globalAlpha = this.opacity * (of(n) === this.prototype ? 0.95 : 0.6);
			ctx.fillStyle = COLOURS[colour];
			ctx.fillRect((n % this.w) * a, Math.floor(n / this.w) * b, a + 0.5, b + 0.5);
		}
		Object.assign(ctx, { globalAlpha: 0.8, strokeStyle: '#fff', lineWidth: 1 });
		ctx.beginPath();
		for (let n = 0; n < this.N; n++) {
			const [x, y] = [((n % this.w) + 1) * a, (Math.floor(n / this.w) + 1) * b];
			if ((n + 1) % this.w && of(n) !== of(n + 1)) {
				ctx.moveTo(x, y - b);
				ctx.lineTo(x, y);
			}
			if (n + this.w < this.N && of(n) !== of(n + this.w)) {
				ctx.moveTo(x - a, y);
				ctx.lineTo(x, y);
			}
		}
		ctx.stroke();
		ctx.restore();
	}

	noteImage() {
		const { image: m, patch: p, smooth, prototype: k } = this;
		const kind = smooth ? 'smoothed' : `raw, ${this.h} × ${this.w} patches`;
		const what = {
			likeness: p < 0 ? 'click a patch to see what is like it' : `likeness to the box, ${kind}`,
			prototype: k < 0 ? 'click a patch, a point or a row' : `${this.names()[k]}, ${kind}`,
			all: 'all prototypes; the pointer names them',
		}[this.model.get('show')];
		this.imageNote.textContent = this.imageNote.title = `${this.className(m)}${this.idOf(m)}: ${what}`;
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
			? `Nearest patches, one an image${this.meta.groups ? ', groups in turn' : ''}, and their distance (1 − cosine) to the prototype:`
			: '';
		if (this.nearKey === key) return;
		this.nearKey = key;
		this.near.replaceChildren(
			...near.map(([p, distance], n) => {
				const m = this.at(p);
				const label = `Nearest ${n + 1}: ${this.className(m)}${this.idOf(m)}, distance ${distance.toFixed(2)}`;
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
