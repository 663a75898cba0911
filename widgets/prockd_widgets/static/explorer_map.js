// The map: where each patch lies, what colours it, its contours and labels, and how near one looks.
const GRID_OF_MAP = 96;
const COUNTED = 200000; // patches that contours and the places of names are made of
const DENSE = 150000; // patches in view from which on their density is drawn, and no marks
const FLIGHT_MS = 700;

class ExplorerMap extends ExplorerPage {
	mapSection() {
		this.maps = this.meta.models.map((m, i) =>
			this.pane(`Map of the patches, ${m.name}. Plus and minus zoom.`, 12, () => this.points(i), {
				move: (dx, dy) => this.moveBy(i, dx, dy),
				zoom: (by, at) => this.zoomBy(by, i, at),
			}),
		);
		this.mapNote = el('figcaption');
		this.mapChoice = el('span');
		this.legend = el('div.prk-legend', {});
		const tools = [
			['lasso', 'Lasso', 'Draw around patches'],
			['box', 'Box', 'Draw a box'],
			['move', 'Move', 'Move the map; the middle button does it with any tool, and the wheel zooms'],
		];
		this.tools = segmented('Drag', tools, 'lasso', tool => {
			this.tool = tool;
			this.tools.show(tool);
		});
		this.labels = el('input', { type: 'checkbox', checked: true, onchange: () => this.redraw() });
		const about = 'Where patches lie dense, and the names of prototypes where most of their patches are';
		const head = el(
			'div.prk-head',
			{},
			el('h3', {}, 'Map'),
			this.mapChoice,
			this.tools.node,
			el('span.prk-set', {}, ...this.zoomButtons()),
			el('label', { title: about }, this.labels, 'Labels'),
		);
		this.showMaps();
		return el('section.prk-map', {}, head, this.twins(this.maps), this.mapNote, this.legend);
	}

	// a button for each map that there is, and one for the kernel to make what is not there
	showMaps() {
		const { meta } = this;
		const have = this.model.get('maps').map(({ name, note }) => [name, name, note]);
		const about =
			'Lay the map out by UMAP: near means more alike than by PCA. It takes half a minute, all else goes on';
		this.projections = segmented('Map by', have, this.model.get('on_map'), on_map => this.set({ on_map }));
		const ask = have.length < 2 && meta.kernel ? button('UMAP', about, () => this.model.send({ do: 'umap' })) : null;
		this.mapChoice.replaceChildren(...[have.length > 1 ? this.projections.node : ask].filter(Boolean));
	}

	zoomButtons() {
		return [
			button('−', 'Zoom out (-)', () => this.zoomBy(1 / 1.5)),
			button('+', 'Zoom in (+)', () => this.zoomBy(1.5)),
			button('Fit', 'The whole map (0)', () => this.zoomBy(0)),
		];
	}

	// about a place of map i in pixels, else towards the middle of the selection or the box; what is nowhere does not count
	zoomBy(by, i, at) {
		const before = this.zoom;
		this.zoom = by ? clamp(this.zoom * by, 1, 60) : 1;
		if (this.zoom === 1) this.mids = this.mids.map(() => [0.5, 0.5]);
		else if (at) {
			const { width, height } = this.maps[i];
			const side = this.sideOf(i);
			const shift = (1 / before - 1 / this.zoom) / side;
			const [dx, dy] = [(at[0] - width / 2) * shift, (at[1] - height / 2) * shift];
			this.mids = this.mids.map(([x, y]) => [clamp(x + dx, 0, 1), clamp(y + dy, 0, 1)]);
		} else {
			const over = this.selected.length ? this.selected : [this.patch];
			this.mids = this.places.map((xy, j) => middleOf(xy, over) || this.mids[j]);
		}
		this.redraw();
	}

	// CSS pixels of the square of places, so that what is there fills map i
	sideOf(i) {
		const [wide, high] = this.extents[i];
		return Math.min((this.maps[i].width - 18) / wide, (this.maps[i].height - 18) / high);
	}

	moveBy(i, dx, dy) {
		const side = this.sideOf(i) * this.zoom;
		this.mids = this.mids.map(([x, y]) => [clamp(x - dx / side, 0, 1), clamp(y - dy / side, 0, 1)]);
		this.redraw();
	}

	// patches go from where they were to where they are now, so that the eye can follow
	fly() {
		const still = matchMedia('(prefers-reduced-motion: reduce)').matches || this.P > 300000;
		const from = this.places;
		const before = this.placesOf;
		this.readPlaces();
		if (before === this.placesOf) return; // told twice of one change
		this.contours = [];
		if (still || !this.root.clientWidth || from.some((xy, i) => xy.length !== this.places[i].length))
			return this.redraw();
		const began = performance.now();
		this.flight = { from, t: 0 };
		const step = () => {
			const t = Math.min(1, (performance.now() - began) / FLIGHT_MS);
			if (!this.flight || this.flight.from !== from) return;
			this.flight.t = t * t * (3 - 2 * t);
			if (t === 1) this.flight = null;
			for (const i of this.maps.keys()) this.drawMap(i);
			this.mark();
			if (t < 1) requestAnimationFrame(step);
		};
		requestAnimationFrame(step);
	}

	// where each patch is on map i, in CSS pixels
	points(i) {
		const c = this.maps[i];
		const xy = this.places[i];
		const mid = this.mids[i];
		const { from, t } = this.flight || { t: 1 };
		const key = [c.width, c.height, this.zoom, t, this.on_map, ...mid].join();
		if (this.placed[i]?.key !== key) {
			const side = this.sideOf(i) * this.zoom;
			const old = from?.[i] || xy;
			const { X = new Float32Array(this.P), Y = new Float32Array(this.P) } = this.placed[i] || {};
			const left = c.width / 2 - mid[0] * side;
			const top = c.height / 2 - mid[1] * side;
			const s = side / 65534;
			for (let p = 0, q = 0; p < this.P; p++, q += 2) {
				const a = old[q] === NOWHERE ? xy[q] : old[q];
				const b = old[q] === NOWHERE ? xy[q + 1] : old[q + 1];
				X[p] = xy[q] === NOWHERE ? -1e6 : left + (a + t * (xy[q] - a)) * s;
				Y[p] = top + side - (b + t * (xy[q + 1] - b)) * s;
			}
			this.placed[i] = { key, n: this.P, X, Y, left, top, side, x: p => X[p], y: p => Y[p], patch: p => p };
		}
		return this.placed[i];
	}

	// the number of each patch's colour and shape, kept until something of it changes
	numbersOf(i) {
		const { label } = this.soft[i];
		const { colour_by: by, prototype: k } = this;
		const key = [by, by === 'prototype' && k, this.selected.length > 0].join();
		this.numbers ||= [];
		const kept = this.numbers[i];
		if (kept?.key === key && kept.label === label && kept.stats === this.stats) return kept.values;
		const { of } = this.colouring(i);
		const values = new Int16Array(this.P);
		for (let p = 0; p < this.P; p++) values[p] = of(p);
		this.numbers[i] = { key, label, stats: this.stats, values };
		return values;
	}

	drawMap(i) {
		const c = this.maps[i];
		const wide = c.node.clientWidth;
		if (!c.fit(Math.round(this.two ? Math.min(340, wide) : clamp(0.64 * wide, 260, 420)))) return;
		const ctx = c.base.getContext('2d');
		const [W, H, P] = [c.base.width, c.base.height, this.P];
		const picture = ctx.createImageData(W, H);
		const out = new Uint32Array(picture.data.buffer);
		const { X, Y } = this.points(i);
		const { kept, mask } = this;
		const numbers = this.numbersOf(i);
		const like = this.likeness ? this.like(i) : null;
		const { night } = this;
		const grey = night ? 0xff433d36 : 0xffe2deda;
		const plain = night ? 0xff6b645c : 0xffc8c3bd;
		const some = this.selected.length > 0 || like;
		const colours = COLOURS.map((hex, n) => (n === 7 && night ? 0xffffffff : abgr(hex)));
		const visible = this.numKept / this.zoom ** 2;
		const most = Math.max(8, this.colouring(i).texts.length);
		const styles = Array.from({ length: most }, (_, n) => styleOf(n));
		const [hues, forms] = [Uint32Array.from(styles, ([c]) => colours[c]), Uint8Array.from(styles, ([, s]) => s)];
		const behind = p => (like ? like[p] <= 0.4 : (some && !mask[p]) || (numbers[p] < 0 && !some));
		const colour = p => (like ? heatColour(like[p]) : numbers[p] < 0 ? plain : hues[numbers[p]]);
		// draws those marks that stand out, or the others: the former larger where they are fewer
		const marks = (number, front) => {
			const size = Math.round(Math.max(1, c.ratio * markSize(number)));
			const stamps = shapesOf(size).map(cells => Int32Array.from(cells, ([a, b]) => b * W + a));
			for (let p = 0; p < P; p++) {
				const x = Math.round(X[p] * c.ratio - size / 2);
				const y = Math.round(Y[p] * c.ratio - size / 2);
				if (x < 0 || y < 0 || x + size > W || y + size > H || !kept[p] || behind(p) === front) continue;
				const of = front ? colour(p) : some ? grey : plain;
				const offsets = stamps[front && !like && numbers[p] >= 0 ? forms[numbers[p]] : 0];
				for (let m = 0, at = y * W + x; m < offsets.length; m++) out[at + offsets[m]] = of;
			}
		};
		if (visible > DENSE && !this.flight) {
			const colours = new Uint32Array(P);
			for (let p = 0; p < P; p++) colours[p] = !kept[p] ? 1 : behind(p) ? 0 : colour(p);
			const size = Math.max(1, Math.round(2 * c.ratio)); // a mark of two CSS pixels
			const scaled = c.ratio === 1 ? { X, Y } : { X: X.map(x => x * c.ratio), Y: Y.map(y => y * c.ratio) };
			shade(out, W, { ...scaled, colours, size, grey: night ? 0xff9a9288 : 0xff8a8178 });
		} else {
			marks(visible, false);
			marks(this.selected.length && !like ? Math.min(visible, 2 * this.selected.length) : visible, true);
		}
		ctx.putImageData(picture, 0, 0);
		if (this.labels.checked && !this.flight) this.drawLabels(i, c, night);
	}

	// contours around 30, 60 and 90 % of all patches, and names where the patches of a prototype are densest
	drawLabels(i, c, night) {
		const ctx = c.base.getContext('2d');
		const { left, top, side } = this.points(i);
		const xy = this.places[i];
		const place = [
			p => (xy[2 * p] === NOWHERE || !this.kept[p] ? -1 : xy[2 * p] / 65535),
			p => 1 - xy[2 * p + 1] / 65535,
		];
		this.contours[i] ||= this.contoursOf(i, ...place);
		const { lines, modes } = this.contours[i];
		ctx.save();
		ctx.setTransform(c.ratio, 0, 0, c.ratio, 0, 0);
		ctx.strokeStyle = night ? '#ffffff66' : '#0000004d';
		ctx.lineWidth = 1;
		ctx.beginPath();
		for (const [a, b, d, e] of lines) {
			ctx.moveTo(left + a * side, top + b * side);
			ctx.lineTo(left + d * side, top + e * side);
		}
		ctx.stroke();
		ctx.font = '600 11.5px system-ui, sans-serif';
		const found = modes.map(mode => {
			const text = this.labelOf(i, mode);
			return { ...mode, text, width: ctx.measureText(text).width, x: left + mode.x * side, y: top + mode.y * side };
		});
		found.sort((a, b) => (b.k === this.focus(i)) - (a.k === this.focus(i)));
		Object.assign(ctx, { textAlign: 'center', textBaseline: 'middle', lineJoin: 'round', lineWidth: 3.5 });
		ctx.strokeStyle = night ? '#16191de6' : '#ffffffe6';
		ctx.fillStyle = night ? '#fff' : '#1d2126';
		const most = Math.round(12 * Math.sqrt(this.zoom));
		for (const { text, x, y } of withRoom(found, c.width, c.height).slice(0, most)) {
			ctx.strokeText(text, x, y);
			ctx.fillText(text, x, y);
		}
		ctx.restore();
	}

	// of every patch, or of every so many where there are very many
	contoursOf(i, xOf, yOf) {
		const { label } = this.soft[i];
		const step = Math.ceil(this.P / COUNTED);
		const [n, x, y] = [Math.floor(this.P / step), p => xOf(p * step), p => yOf(p * step)];
		const cells = densityOf(n, x, y, GRID_OF_MAP);
		const lines = levelsOf(cells, [0.3, 0.6, 0.9]).flatMap(level => contour(cells, GRID_OF_MAP, level));
		const rank = k => 2 * !/^p\d+$/.test(this.names(i)[k]) + !!this.stats[i][k]?.clearest?.length;
		const kind = p => (label[p * step] === NONE ? -1 : label[p * step]);
		const modes = densest(n, x, y, kind, this.names(i).length);
		const most = this.meta.parts ? mostly(label, this.parts(), modes.length, this.meta.parts.length) : [];
		for (const mode of modes) if (mode) mode.part = this.meta.parts?.[most[mode.k] || -1];
		return { lines, modes: modes.filter(Boolean).sort((a, b) => rank(b.k) - rank(a.k) || b.size - a.size) };
	}

	// a prototype's name; where nobody named it also the part that most of its patches lie on, as their colours tell
	labelOf(i, { k, part }) {
		const name = this.names(i)[k];
		const short = name.length > 18 ? `${name.slice(0, 17)}…` : name;
		return part && /^p\d+$/.test(name) ? `${short} ${part}` : short;
	}

	note() {
		const colours = this.likeness
			? '; colour is likeness to the box'
			: this.meta.match && this.colour_by === 'prototype'
				? '; matched prototypes share a colour'
				: '';
		const maps = this.model.get('maps');
		const other = maps.findIndex(({ name }) => name === this.on_map);
		const said = other > 0 ? maps[other].note : this.map_note;
		this.mapNote.textContent = `${said}. Near means alike${colours}.`;
	}

	drawLegend() {
		const { texts } = this.colouring(0);
		const numbers = this.numbersOf(0);
		const { kept, mask } = this;
		const all = new Uint32Array(texts.length);
		const mine = new Uint32Array(texts.length);
		for (let p = 0; p < this.P; p++) {
			const n = kept[p] ? numbers[p] : -1;
			if (n < 0) continue;
			all[n]++;
			mine[n] += mask[p];
		}
		const some = this.selected.length > 0;
		const tally = some ? mine : all;
		const order = [...tally.keys()]
			.filter(n => tally[n])
			.sort((a, b) => tally[b] - tally[a])
			.slice(0, 12);
		this.legend.replaceChildren(
			...(this.likeness ? [] : order).map(n => {
				const number = some ? `${count(mine[n])} / ${count(all[n])}` : count(all[n]);
				const title = `${texts[n]}: ${number} patches`;
				return el('span', { title }, symbol(n, 10), el('bdi.prk-name', {}, texts[n]), el('small', {}, number));
			}),
		);
	}
}
