// The map: where each patch lies, what colours it, and how near one looks.
class ExplorerMap extends ExplorerPage {
	mapSection() {
		this.maps = this.meta.models.map((m, i) =>
			this.pane(`Map of the patches, ${m.name}. Plus and minus zoom.`, 12, () => this.points(i)),
		);
		this.mapNote = el('figcaption');
		this.legend = el('div.prk-legend', {});
		const head = el('div.prk-head', {}, el('h3', {}, 'Map'));
		return el('section.prk-map', {}, head, this.twins(this.maps), this.mapNote, this.legend);
	}

	zoomButtons() {
		const buttons = [
			button('−', 'Zoom out (-)', () => this.zoomBy(1 / 1.5)),
			button('+', 'Zoom in (+)', () => this.zoomBy(1.5)),
			button('Fit', 'The whole map (0)', () => this.zoomBy(0)),
		];
		const about = 'Lay the map out by UMAP; takes a minute or two, all else goes on';
		if (this.meta.kernel) buttons.push(button('UMAP', about, () => this.model.send({ do: 'umap' })));
		return buttons;
	}

	// towards the middle of the selection, else the box; what is not on the map does not count
	zoomBy(by) {
		this.zoom = by ? clamp(this.zoom * by, 1, 40) : 1;
		const over = this.selected.length ? this.selected : [this.patch];
		this.mids = this.places.map((xy, i) => {
			let n = 0;
			let x = 0;
			let y = 0;
			for (const p of over)
				if (p >= 0 && xy[2 * p] !== NOWHERE) {
					n++;
					x += xy[2 * p];
					y += xy[2 * p + 1];
				}
			return this.zoom === 1 ? [0.5, 0.5] : n ? [x / n / 65534, 1 - y / n / 65534] : this.mids[i];
		});
		this.redraw();
	}

	// where each patch is on map i, in CSS pixels
	points(i) {
		const c = this.maps[i];
		const xy = this.places[i];
		const mid = this.mids[i];
		const key = [c.width, c.height, this.zoom, ...mid].join();
		if (this.placed[i]?.key !== key) {
			const side = (Math.min(c.width, c.height) - 18) * this.zoom;
			const X = new Float32Array(this.P);
			const Y = new Float32Array(this.P);
			const left = c.width / 2 - mid[0] * side;
			const top = c.height / 2 - mid[1] * side;
			for (let p = 0; p < this.P; p++) {
				X[p] = xy[2 * p] === NOWHERE ? -1e6 : left + (xy[2 * p] / 65534) * side;
				Y[p] = top + (1 - xy[2 * p + 1] / 65534) * side;
			}
			this.placed[i] = { key, n: this.P, X, Y, x: p => X[p], y: p => Y[p], patch: p => p };
		}
		return this.placed[i];
	}

	drawMap(i) {
		const c = this.maps[i];
		const wide = c.node.clientWidth;
		if (!c.fit(Math.round(this.meta.models.length > 1 ? Math.min(340, wide) : Math.min(448, 0.84 * wide)))) return;
		const ctx = c.base.getContext('2d');
		const W = c.base.width;
		const H = c.base.height;
		const picture = ctx.createImageData(W, H);
		const out = new Uint32Array(picture.data.buffer);
		const { X, Y } = this.points(i);
		const { of } = this.colouring(i);
		const like = this.likeness ? this.like(i) : null;
		const night = dark(this.root);
		const grey = night ? 0xff4b443d : 0xffd9d4cf;
		const some = this.selected.length > 0 || like;
		const visible = Math.max(1, this.P / this.zoom ** 2);
		const side = visible > 60000 ? 2 : visible > 12000 ? 3 : visible > 4000 ? 4.5 : visible > 900 ? 6 : 8;
		const size = Math.round(Math.max(1, c.ratio * side));
		const stamps = shapesOf(size).map(cells => Int32Array.from(cells, ([a, b]) => b * W + a));
		const colours = COLOURS.map((hex, n) => (n === 7 && night ? 0xffffffff : abgr(hex)));
		const put = (p, colour, offsets) => {
			const x = Math.round(X[p] * c.ratio - size / 2);
			const y = Math.round(Y[p] * c.ratio - size / 2);
			if (x < 0 || y < 0 || x + size > W || y + size > H) return;
			for (let n = 0, at = y * W + x; n < offsets.length; n++) out[at + offsets[n]] = colour;
		};
		for (let pass = some ? 0 : 1; pass < 2; pass++)
			for (let p = 0; p < this.P; p++) {
				if (like) {
					const high = like[p] > 0.4;
					if (high !== (pass === 1)) continue;
					put(p, high ? heatColour(like[p]) : grey, stamps[0]);
					continue;
				}
				if (some && this.mask[p] !== pass) continue;
				const n = of(p);
				if (n < 0 || !pass) put(p, pass && n < 0 ? (night ? 0xff8a8078 : 0xff9aa1a8) : grey, stamps[0]);
				else {
					const [colour, shape] = styleOf(n);
					put(p, colours[colour], stamps[shape]);
				}
			}
		ctx.putImageData(picture, 0, 0);
	}

	note() {
		const colours = this.likeness
			? '; colour is likeness to the box'
			: this.meta.match && this.colour_by === 'prototype'
				? '; matched prototypes share a colour'
				: '';
		this.mapNote.textContent = `${this.map_note}. Near means alike${colours}.`;
	}

	drawLegend() {
		const { of, texts } = this.colouring(0);
		const tally = new Uint32Array(texts.length);
		const over = this.selected.length ? this.selected : null;
		if (over)
			for (const p of over) {
				if (of(p) >= 0) tally[of(p)]++;
			}
		else for (let p = 0; p < this.P; p++) if (of(p) >= 0) tally[of(p)]++;
		const order = [...tally.keys()]
			.filter(n => tally[n])
			.sort((a, b) => tally[b] - tally[a])
			.slice(0, 12);
		this.legend.replaceChildren(
			...(this.likeness ? [] : order).map(n =>
				el(
					'span',
					{ title: `${texts[n]}: ${count(tally[n])} patches` },
					symbol(n, 10),
					el('span.prk-name', {}, texts[n]),
				),
			),
		);
	}
}
