// The frame of the explorer: tools, status, hover card, and panes on which one hovers, clicks, drags and moves by key.
class ExplorerPage extends ExplorerChoice {
	build() {
		const { meta } = this;
		this.two = meta.models.length > 1;
		const columns = [
			[this.mapSection(), this.patchSection()],
			[this.imageSection(), this.tableSection()],
		];
		this.card = this.hoverCard();
		this.root = el(
			'div',
			{
				className: `prk prk-explorer${this.two ? ' prk-two' : ''}`,
				role: 'region',
				'aria-label': 'Prototype explorer',
				onkeydown: e => this.key(e),
			},
			this.toolBar(),
			el('div.prk-panes', {}, ...columns.map(sections => el('div.prk-column', {}, ...sections))),
			this.statusBar(),
			this.card,
		);
		this.root.setAttribute('data-lm-suppress-shortcuts', 'true');
		this.host.append(this.root);
	}

	toolBar() {
		const { meta } = this;
		const colours = [
			['prototype', 'prototype'],
			['group', 'group of prototypes'],
			...(meta.parts ? [['part', 'true part']] : []),
			['class', 'class'],
			...(this.two ? [['agreement', 'agreement']] : []),
		];
		this.colour = el(
			'select',
			{ onchange: e => this.set({ colour_by: e.target.value }) },
			...colours.map(([value, text]) => el('option', { value }, text)),
		);
		this.back = button('Undo', 'Take the last rename, merge or switch back (Ctrl+Z)', () => this.undo());
		this.again = button('Redo', 'Make it again (Ctrl+Shift+Z)', () => this.redo());
		return el(
			'div.prk-bar',
			{},
			el('label', {}, 'Colour ', this.colour),
			...this.filters(),
			el('span.prk-space', {}),
			el('span.prk-segments', {}, this.back, this.again),
			el('span.prk-set', {}, 'Save ', el('span.prk-segments', {}, ...this.saveButtons())),
		);
	}

	// what is left to look at: of all patches, or of those on animals and things, in some of the pictures
	filters() {
		const { classes, answers, parts } = this.meta;
		const several = classes.length > 1 ? classes : [];
		const pictures = [
			['all', 'all images'],
			['this', 'this image'],
			...several.map((name, n) => [`class:${n}`, name]),
			...(answers
				? [
						['right', 'answered right'],
						['wrong', 'answered wrong'],
					]
				: []),
		];
		const option = ([value, text]) => el('option', { value }, text);
		const sift = e => this.sift({ pictures: e.target.value });
		this.whichImages = el('select', { onchange: sift }, ...pictures.map(option));
		const about = parts
			? 'Patches on the animals only, by their masks'
			: 'Patches of prototypes that are preferred inside of pictures, not along their border';
		const front = e => this.sift({ keep: e.target.checked ? 'front' : 'all' });
		this.front = el('input', { type: 'checkbox', onchange: front });
		return [
			el('label', {}, 'Show ', this.whichImages),
			el('label', { title: about }, this.front, parts ? 'No background' : 'Foreground'),
		];
	}

	// another filter; what it hides is no longer selected
	sift(change) {
		Object.assign(this.filter, change);
		this.readFilter();
		this.page = 0;
		this.rowsOf = null;
		this.select(Array.from(this.selected));
		this.redraw();
	}

	saveButtons() {
		const buttons = [
			button('CSV', 'The selected patches as a table', () => this.saveTable('csv')),
			button('JSON', 'The selected patches, names and switches', () => this.saveTable('json')),
			button('PNG', 'What is shown, as a picture', () => this.savePicture()),
		];
		if (this.meta.kernel)
			buttons.push(
				button('HTML', 'One file that opens anywhere, offline', () => this.model.send({ do: 'html' })),
				button('Bank', 'Save the prototypes with their names and switches', () => this.model.send({ do: 'bank' })),
			);
		return buttons;
	}

	// one pane a model, side by side, with the model's name where there are two
	twins(panes) {
		const name = m => (this.two ? el('figcaption', {}, m.name) : null);
		return el('div.prk-twins', {}, ...this.meta.models.map((m, i) => el('figure', {}, name(m), panes[i].node)));
	}

	statusBar() {
		const { note } = this.meta;
		this.live = el('span', { role: 'status', 'aria-live': 'polite' });
		this.message = el('span.prk-soft', { role: 'status', 'aria-live': 'polite' }, this.status);
		const help = el(
			'details',
			{},
			el('summary', {}, 'Keys'),
			'Tab goes from pane to pane. In a pane: arrows move, Enter picks, Space adds or drops, Shift with a drag adds, Alt drops, Escape clears. ',
			'Map: + − 0 or the wheel zoom, the middle button moves. Image: Page Up, Page Down. Table: ↑ ↓ move, Enter picks, d switches off or on. Ctrl+Z takes an edit back, Ctrl+Shift+Z makes it again.',
		);
		const space = el('span.prk-space', {});
		return el('div.prk-status', {}, this.live, space, this.message, note ? el('strong', {}, note) : null, help);
	}

	hoverCard() {
		this.cardPicture = el('canvas', { width: 184, height: 184 });
		this.cardText = el('div');
		return el('div.prk-card', { hidden: true }, this.cardPicture, this.cardText);
	}

	tell(text) {
		this.message.textContent = text;
	}

	// a canvas on which one hovers, clicks, drags and moves by key; centres() tells where its patches are. What can be
	// moved and zoomed says how: with a tool or the middle button, with the wheel, with two fingers
	pane(label, reach, centres, view) {
		const c = new Canvas(`${label} Arrows move, Enter picks, Space adds.`);
		const place = e => {
			const r = c.over.getBoundingClientRect();
			return [e.clientX - r.left, e.clientY - r.top];
		};
		const fingers = new Map();
		let path = null;
		let held = null;
		const listen = (event, f, options) => c.over.addEventListener(event, f, options);
		listen('pointerdown', e => {
			fingers.set(e.pointerId, place(e));
			if (view && (fingers.size > 1 || e.button === 1 || (e.button === 0 && this.tool === 'move'))) {
				held = place(e);
				path = null;
				e.preventDefault();
			} else if (e.button === 0) path = [place(e)];
			else return;
			c.over.setPointerCapture(e.pointerId);
		});
		listen('pointermove', e => {
			const at = place(e);
			if (fingers.has(e.pointerId)) {
				const before = [...fingers.values()];
				fingers.set(e.pointerId, at);
				if (view && fingers.size === 2) return pinch(before, [...fingers.values()], view);
			}
			if (held) {
				view.move(at[0] - held[0], at[1] - held[1]);
				held = at;
				return;
			}
			if (!path) return this.point(nearest(at, reach, centres(c)), e);
			path.push(at);
			this.point(-1);
			this.mark(c, path);
		});
		listen('pointerup', e => {
			fingers.delete(e.pointerId);
			const drawn = path;
			path = held = null;
			if (!drawn) return;
			const [[x, y]] = drawn;
			const clicked = drawn.every(([a, b]) => Math.hypot(a - x, b - y) < 4);
			if (clicked) this.pick(nearest(place(e), reach, centres(c)), e);
			else this.select(within(drawn, this.tool, centres(c)), e.shiftKey ? 'add' : e.altKey ? 'drop' : 'new');
			this.mark();
		});
		listen('pointercancel', e => {
			fingers.delete(e.pointerId);
			path = held = null;
			this.mark();
		});
		listen('pointerleave', () => {
			if (!path) this.point(-1);
		});
		listen('blur', () => this.point(-1));
		listen('keydown', e => this.paneKey(e, c, centres));
		if (view) {
			const wheel = e => {
				if (e.deltaY > 0 && this.zoom === 1) return; // nothing to zoom out of: the page scrolls
				e.preventDefault();
				view.zoom(Math.exp(-clamp(e.deltaY * (e.deltaMode ? 20 : 1), -120, 120) / 300), place(e));
			};
			listen('wheel', wheel, { passive: false });
			c.over.classList.add('prk-free');
		}
		return c;
	}

	paneKey(e, c, centres) {
		const at = this.hover >= 0 ? this.hover : this.patch;
		if (ARROWS[e.key]) {
			const all = centres(c);
			const i = neighbour(at, ARROWS[e.key], all);
			const r = c.over.getBoundingClientRect();
			this.where = [r.left + all.x(i), r.top + all.y(i)];
			this.point(all.patch(i));
			if (e.shiftKey && this.hover >= 0) this.select([this.hover], 'add');
		} else if (e.key === 'Enter') this.pick(at);
		else if (e.key === ' ' && this.hover >= 0) this.pick(this.hover, { shiftKey: true });
		else return;
		e.preventDefault();
	}

	count() {
		const { selected, P, M, N, kept, numKept, numShown, meta } = this;
		const n = selected.length;
		const tally = new Uint32Array(256);
		const parts = this.parts();
		const sentences = [];
		const seen = new Uint8Array(M);
		let same = 0;
		for (let at = 0; at < n; at++) {
			seen[Math.floor(selected[at] / N)] = 1;
			tally[parts[selected[at]]]++;
		}
		const left = numKept < numShown ? `${count(numKept)} of ${count(numShown)}` : count(numShown);
		for (let m = 0; !n && m < M; m++) seen[m] = kept.subarray(m * N, (m + 1) * N).includes(1);
		const number = seen.reduce((a, b) => a + b, 0);
		const images = `${count(number)} ${number === 1 ? 'image' : 'images'}`;
		sentences.push(
			n ? `${count(n)} of ${left} patches selected, in ${images}` : `${left} patches of ${images}, none selected`,
		);
		if (n && meta.parts) {
			const order = meta.parts.map((_, part) => part).sort((a, b) => tally[b] - tally[a]);
			const most = order.slice(0, 2).filter(part => tally[part]);
			sentences.push(most.map(part => `${percent(tally[part] / n)} ${meta.parts[part]}`).join(', '));
		}
		if (this.two) {
			if (n) for (const p of selected) same += this.agrees(p);
			else for (let p = 0; p < P; p++) same += kept[p] && this.agrees(p);
			const who = meta.models.map(m => m.name).join(' and ');
			sentences.push(`${who} agree on ${count(same)} (${percent(same / (n || numKept || 1))})`);
		}
		const text = sentences.join(' · ');
		if (this.live.textContent !== text) this.live.textContent = text;
	}
}

// two fingers that moved from before to after
function pinch([a, b], [c, d], view) {
	const mid = ([x, y], [u, v]) => [(x + u) / 2, (y + v) / 2];
	const far = ([x, y], [u, v]) => Math.max(1, Math.hypot(x - u, y - v));
	const [from, to] = [mid(a, b), mid(c, d)];
	view.zoom(far(c, d) / far(a, b), from);
	view.move(to[0] - from[0], to[1] - from[1]);
}
