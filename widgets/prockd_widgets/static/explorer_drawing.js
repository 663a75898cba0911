// What the explorer draws: map, image, patches, table, and the marks above them.
class ExplorerDrawing extends ExplorerPage {
	draw() {
		const { model, prototype: k, image: m, patch: p, likeness, smooth } = this;
		if (!this.root.clientWidth) return;
		this.root.classList.toggle('prk-dark', dark(this.root));
		this.colour.value = this.colour_by;
		this.slider.value = this.opacity;
		this.heatKind.show(model.get('show'));
		this.smoothing.show(smooth);
		this.scaleName.textContent = likeness ? 'cosine' : 'assignment';
		for (const i of this.meta.models.keys()) {
			this.drawMap(i);
			this.drawImage(i);
		}
		this.drawNear();
		this.drawGrid();
		this.drawTable();
		this.note();
		const kind = smooth ? 'smoothed' : `raw, ${this.h} × ${this.w} patches`;
		const of = likeness
			? p < 0
				? 'click a patch to see what is like it'
				: `likeness to the box, ${kind}`
			: k < 0
				? 'click a patch, a point or a row'
				: `${this.names()[k]}, ${kind}`;
		this.imageNote.textContent = `${this.className(m)}image ${this.meta.ids[m]}: ${of}`;
		this.drawLegend();
		this.mark();
		this.count();
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

	count() {
		const { selected, P, M, numShown, meta } = this;
		const n = selected.length;
		const seen = new Uint8Array(M);
		const tally = new Uint32Array(256);
		const parts = this.parts();
		const sentences = [];
		let same = 0;
		for (const p of selected) {
			seen[this.at(p)] = 1;
			tally[parts[p]]++;
		}
		const images = seen.reduce((a, b) => a + b, 0);
		const most = tally.indexOf(Math.max(...tally));
		sentences.push(
			n
				? `${count(n)} of ${count(numShown)} patches selected, in ${count(images)} ${images === 1 ? 'image' : 'images'}`
				: `${count(numShown)} patches of ${count(M)} images, none selected`,
		);
		if (n && meta.parts) sentences.push(`${percent(tally[most] / n)} ${meta.parts[most]}`);
		if (this.soft[1]) {
			if (n) for (const p of selected) same += this.agrees(p);
			else for (let p = 0; p < P; p++) same += this.agrees(p);
			sentences.push(
				`${meta.models.map(m => m.name).join(' and ')} agree on ${count(same)} (${percent(same / (n || numShown))})`,
			);
		}
		const text = sentences.join(' · ');
		if (this.live.textContent !== text) this.live.textContent = text;
	}

	// rings, boxes and the line that is being drawn, above the pictures
	mark(dragged, path) {
		const p = this.hover;
		const boxed = this.patch;
		const image = this.image;
		for (const [i, c] of this.maps.entries()) {
			if (!c.width) continue;
			const ctx = c.start(c.over);
			const points = this.points(i);
			for (const [q, r, wide] of [
				[boxed, 6, 2],
				[p, 8, 2.5],
			])
				if (q >= 0 && this.places[i][2 * q] !== NOWHERE)
					outline(ctx, wide, () => ctx.arc(points.x(q), points.y(q), r, 0, 7));
		}
		for (const c of this.images) {
			if (!c.width) continue;
			const ctx = c.start(c.over);
			const a = c.width / this.w;
			const b = c.height / this.h;
			const cell = n => [(n % this.w) * a, Math.floor(n / this.w) * b, a, b];
			ctx.fillStyle = '#fff';
			if (!this.likeness)
				for (let n = 0; n < this.N; n++)
					if (this.mask[image * this.N + n]) {
						const [x, y] = cell(n);
						ctx.beginPath();
						ctx.arc(x + a / 2, y + b / 2, Math.max(1.5, a / 9), 0, 7);
						ctx.fill();
						Object.assign(ctx, { strokeStyle: '#000', lineWidth: 1 });
						ctx.stroke();
					}
			for (const [q, line] of [
				[boxed, 3],
				[p, 1.5],
			])
				if (q >= 0 && this.at(q) === image) box(ctx, ...cell(q % this.N), line);
		}
		if (this.grid.width) {
			const ctx = this.grid.start(this.grid.over);
			for (const cell of this.cells)
				if (cell.patch === p || cell.patch === boxed)
					box(ctx, cell.x + 1, cell.y + 1, cell.side - 2, cell.side - 2, cell.patch === p ? 3 : 2);
		}
		if (!path) return;
		const ctx = dragged.over.getContext('2d');
		const [x, y] = path[0];
		const [a, b] = path.at(-1);
		outline(ctx, 1.5, () => {
			if (this.tool === 'box') {
				ctx.rect(x, y, a - x, b - y);
				return;
			}
			for (const [u, v] of path) ctx.lineTo(u, v);
			ctx.closePath();
		});
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

	drawTable() {
		const i = this.which;
		const k = this.prototype;
		if (this.rowsOf !== i) this.fillTable(i);
		let first = this.body.firstChild;
		for (const tr of this.body.children) {
			const mine = +tr.dataset.k === k;
			if (mine) first = tr;
			tr.setAttribute('aria-selected', mine);
			tr.tabIndex = -1;
		}
		if (first) first.tabIndex = 0;
		if (first && this.last !== k && !this.body.contains(document.activeElement))
			this.scroll.scrollTop = Math.max(0, first.offsetTop - 120);
		this.last = k;
		for (const option of this.mergeWith.options) option.hidden = option.value !== '' && +option.value === k;
		const on = k >= 0 && this.state(i).enabled[k];
		this.nameField.disabled = k < 0;
		this.switchButton.disabled = k < 0;
		this.mergeWith.disabled = !on;
		if (document.activeElement !== this.nameField) this.nameField.value = k >= 0 ? this.names(i)[k] : '';
		this.switchButton.textContent = k >= 0 && !on ? 'Enable' : 'Disable';
		this.back.disabled = !this.past.length;
		this.whose.show(i);
	}

	// the rows of model i anew; the keyboard stays on its prototype
	fillTable(i) {
		this.rowsOf = i;
		const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.k : null;
		this.body.replaceChildren(...this.table(i).map(row => this.tableRow(i, row)));
		for (const [key, th] of this.headings)
			th.setAttribute('aria-sort', key !== this.sort[0] ? 'none' : this.sort[1] > 0 ? 'ascending' : 'descending');
		const { enabled } = this.state(i);
		const options = this.names(i).map((name, n) => (enabled[n] ? el('option', { value: n }, name) : null));
		this.mergeWith.replaceChildren(el('option', { value: '' }, 'Merge with…'), ...options.filter(Boolean));
		if (focused) this.body.querySelector(`[data-k="${focused}"]`)?.focus();
	}

	tableRow(i, row) {
		const { k, name, marks, part, best, entropy, other, alike } = row;
		const { parts } = this.meta;
		const cell = (text, className = '') => el('td', { className, title: text }, text);
		const label = text => el('span.prk-name', {}, text);
		const badges = marks.map(mark => el('span.prk-mark', {}, mark));
		const thumb = `${k}/${best}`;
		if (best >= 0) this.thumbs[thumb] ||= this.thumb(best, 48);
		const next = other < 0 ? '' : this.names(i)[other];
		const tr = el(
			'tr',
			{
				tabIndex: -1,
				className: row.off ? 'prk-off' : '',
				onclick: () => this.choose(k),
				onkeydown: e => this.rowKey(e, k),
			},
			el(
				'td',
				{ title: [name, ...marks].join(', ') },
				el('div', {}, symbol(this.hue(i, k), 12), label(name), ...badges),
			),
			cell(count(row.size), 'prk-number'),
			parts ? cell(row.size ? `${parts[part]}${part ? ` ${percent(row.purity)}` : ''}` : '–') : null,
			cell(entropy == null ? '–' : entropy.toFixed(2), 'prk-number'),
			el('td', {}, best < 0 ? '' : this.thumbs[thumb]),
			next ? el('td', { title: next }, el('div', {}, label(next), alike.toFixed(2))) : cell('–'),
		);
		tr.dataset.k = k;
		return tr;
	}

	tell(text) {
		this.message.textContent = text;
	}
}
