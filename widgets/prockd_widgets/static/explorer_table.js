// The table of prototypes, and what is edited above it.
class ExplorerTable extends ExplorerPatches {
	tableSection() {
		const { models } = this.meta;
		this.whose = segmented(
			'Prototypes of',
			models.map((m, i) => [i, m.name]),
			0,
			i => this.set({ model: i, prototype: this.focus(i) }),
		);
		this.headRow = el('tr');
		this.body = el('tbody');
		this.scroll = el(
			'div.prk-scroll',
			{},
			el('table', { 'aria-label': 'Prototypes' }, el('thead', {}, this.headRow), this.body),
		);
		const found = e => {
			this.search = e.target.value;
			this.rowsOf = null;
			this.redraw();
		};
		this.searchField = el('input', { type: 'search', placeholder: 'Search…', oninput: found });
		this.searchField.setAttribute('aria-label', 'Search prototypes by name, part or mark');
		this.more = el('input', {
			type: 'checkbox',
			onchange: () => {
				this.rowsOf = null;
				this.redraw();
			},
		});
		const about = 'Entropy, redundancy, the nearest other prototype, and the share of one image or group';
		return el(
			'section.prk-table',
			{},
			el('div.prk-edit', {}, ...this.editors()),
			el('div.prk-edit', {}, this.searchField, el('label', { title: about }, this.more, 'More columns')),
			this.scroll,
		);
	}

	// key, heading, what it means, and whether it is a number; those that say what kind of thing a prototype is come first
	columns() {
		const { parts, groups } = this.meta;
		const stats = this.stats[this.which];
		const owner = groups ? 'one group' : 'one image';
		return [
			['name', 'prototype', ''],
			[
				'size',
				'patches',
				'Patches that prefer it; in front of the stroke those selected, or left by the filters',
				true,
			],
			parts && [
				'purity',
				'part',
				'The part it shows, and the share of its strongest patches, one an image, that lie there',
			],
			['clarity', 'clarity', 'How alike its strongest patches are, mean cosine: 1 is one thing', true],
			[
				'place',
				'place',
				'Of its patches, how often the same place of another image is its too: high is a place in the frame, not a part',
				true,
			],
			stats[0]?.effect !== undefined && [
				'effect',
				'effect',
				'Points that the student loses (−) or gains (+) without it',
				true,
			],
			['best', 'best', 'Its nearest patch'],
			...(this.more.checked
				? [
						['entropy', 'entropy', '0: its patches are sure, 1: undecided', true],
						['redundancy', 'redundancy', 'Greatest cosine between its mean patch and another prototype’s', true],
						['owner', owner, `The largest share of its patches that lies in ${owner}`, true],
						['other', 'nearest', 'The most similar prototype, with the cosine'],
					]
				: []),
		].filter(Boolean);
	}

	// what the prototype in focus is renamed, switched and merged with
	editors() {
		this.nameField = el('input', {
			maxLength: 80,
			placeholder: 'no prototype',
			onchange: e => this.rename(this.prototype, e.target.value),
		});
		this.nameField.setAttribute('aria-label', 'Name of the prototype');
		this.switchButton = button('Disable', 'Leave it out of assignment and augmentation', () =>
			this.toggle(this.prototype),
		);
		const label = 'Merge another prototype into this one';
		this.pinButton = button('Pin', 'Keep this prototype beside the next one that is chosen', () => this.pin());
		this.mergeWith = el('select', {
			title: label,
			onchange: e => {
				const other = +e.target.value;
				e.target.value = '';
				this.merge(this.prototype, other);
			},
		});
		this.mergeWith.setAttribute('aria-label', label);
		const pin = this.two ? null : this.pinButton;
		return [this.two ? this.whose.node : null, this.nameField, this.switchButton, this.mergeWith, pin];
	}

	drawTable() {
		const i = this.which;
		const k = this.prototype;
		if (this.rowsOf !== i) this.fillTable(i);
		const { size, now, some } = this.tallies(i);
		let first = this.body.firstChild;
		for (const tr of this.body.children) {
			const mine = +tr.dataset.k === k;
			if (mine) first = tr;
			const [all, of] = [size[tr.dataset.k], now[tr.dataset.k]];
			const text = some ? `${count(of)} / ${count(all)}` : count(all);
			const cell = tr.children[1];
			if (cell.textContent !== text) cell.textContent = text;
			cell.classList.toggle('prk-none', some && !of);
			tr.setAttribute('aria-selected', mine);
			tr.tabIndex = -1;
		}
		if (first) first.tabIndex = 0;
		const chosen = first?.getAttribute('aria-selected') === 'true';
		if (chosen && (this.last !== k || this.resorted) && !this.body.contains(document.activeElement)) {
			const { scrollTop, clientHeight } = this.scroll;
			const out = first.offsetTop < scrollTop + 30 || first.offsetTop > scrollTop + clientHeight - 40;
			const above = [1, 2, 3].reduce(row => row.previousSibling || row, first);
			if (out) this.scroll.scrollTop = above.offsetTop - this.headRow.offsetHeight;
		}
		Object.assign(this, { last: k, resorted: false });
		for (const option of this.mergeWith.options) option.hidden = option.value !== '' && +option.value === k;
		const on = k >= 0 && this.state(i).enabled[k];
		this.nameField.disabled = k < 0;
		this.switchButton.disabled = k < 0;
		this.mergeWith.disabled = !on;
		if (document.activeElement !== this.nameField) this.nameField.value = k >= 0 ? this.names(i)[k] : '';
		this.switchButton.textContent = k >= 0 && !on ? 'Enable' : 'Disable';
		this.pinButton.disabled = k < 0 && this.pinned < 0;
		this.pinButton.textContent = this.pinned < 0 ? 'Pin' : `Unpin ${this.names(i)[this.pinned]}`;
		this.back.disabled = !this.past.length;
		this.again.disabled = !this.future.length;
		this.whose.show(i);
	}

	// the rows of model i anew; the keyboard stays on its prototype
	fillTable(i) {
		this.rowsOf = i;
		const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.k : null;
		const said = row => [row.name, this.meta.parts?.[row.part], ...row.marks].join(' ');
		const rows = this.table(i).filter(row => begins(said(row), this.search));
		const columns = this.columns();
		this.headRow.replaceChildren(...columns.map(column => this.heading(...column)));
		this.body.replaceChildren(...rows.map(row => this.tableRow(i, row, columns)));
		const { enabled } = this.state(i);
		const options = this.names(i).map((name, n) => (enabled[n] ? el('option', { value: n }, name) : null));
		this.mergeWith.replaceChildren(el('option', { value: '' }, 'Merge with…'), ...options.filter(Boolean));
		if (focused) this.body.querySelector(`[data-k="${focused}"]`)?.focus();
	}

	heading(key, text, about, number) {
		const sorter = button(text, about || text, () => this.sortBy(key));
		const th = el(number ? 'th.prk-number' : 'th', { scope: 'col' }, sorter);
		const way = this.sort[1] > 0 ? 'ascending' : 'descending';
		th.setAttribute('aria-sort', key === this.sort[0] ? way : 'none');
		return th;
	}

	tableRow(i, row, columns) {
		const { k, name, marks, best } = row;
		const tr = el(
			'tr',
			{
				tabIndex: -1,
				className: row.off ? 'prk-off' : '',
				onclick: () => this.choose(k),
				onkeydown: e => this.rowKey(e, k),
			},
			...columns.map(([key]) => this.cell(i, row, key)),
		);
		tr.dataset.k = k;
		return tr;
	}

	cell(i, row, key) {
		const { k, name, marks, part, best, other, alike } = row;
		const label = text => el('bdi.prk-name', {}, text); // a name that runs from right to left turns nothing beside it
		if (key === 'name') {
			const badges = marks.map(mark => el('span.prk-mark', {}, mark));
			const title = [name, ...marks].join(', ');
			return el('td', { title }, el('div', {}, symbol(this.hue(i, k), 12), label(name), ...badges));
		}
		if (key === 'best') {
			const thumb = `${k}/${best}`;
			if (best >= 0) this.thumbs[thumb] ||= this.thumb(best, 48);
			return el('td', {}, best < 0 ? '' : this.thumbs[thumb]);
		}
		if (key === 'other') {
			const next = other < 0 ? '' : this.names(i)[other];
			return next ? el('td', { title: next }, el('div', {}, label(next), alike.toFixed(2))) : el('td', {}, '–');
		}
		const said = this.meta.parts?.[part];
		const text = {
			size: () => count(row.size),
			purity: () => (row.size ? `${said}${part ? ` ${percent(row.purity)}` : ''}` : '–'),
			effect: () => (row.effect == null ? '–' : points(row.effect)),
		}[key]?.();
		const number = key === 'purity' ? '' : 'prk-number';
		const shown = text ?? (row[key] == null ? '–' : row[key].toFixed(2));
		return el('td', { className: number, title: shown }, shown);
	}

	// by a column; once more turns the order round. The largest and the purest come first
	sortBy(key) {
		const first = ['name', 'entropy', 'effect', 'best'].includes(key) ? 1 : -1;
		this.sort = [key, this.sort[0] === key ? -this.sort[1] : first];
		this.rowsOf = null;
		this.resorted = true;
		this.redraw();
	}

	rowKey(e, k) {
		const row = e.currentTarget;
		const to = {
			ArrowDown: row.nextSibling,
			ArrowUp: row.previousSibling,
			Home: this.body.firstChild,
			End: this.body.lastChild,
		}[e.key];
		if (to) to.focus();
		else if (e.key === 'Enter' || e.key === ' ') this.choose(k);
		else if (e.key === 'd') this.toggle(k);
		else return;
		e.preventDefault();
	}

	edit(change) {
		const banks = structuredClone(this.banks);
		const before = structuredClone(banks);
		change(banks[this.bank]);
		this.set({ past: [...this.past, before].slice(-50), future: [], banks });
	}

	rename(k, name) {
		if (name.trim() && name.trim() !== this.names()[k])
			this.edit(b => {
				b.names[k] = name.trim().slice(0, 80);
			});
	}

	toggle(k) {
		const { enabled } = this.state(this.which);
		if (enabled[k] && enabled.filter(Boolean).length === 1) return this.tell('One prototype must stay enabled.');
		this.edit(b => {
			b.enabled[k] = !b.enabled[k];
			b.merged[k] = k;
		});
	}

	merge(into, other) {
		this.edit(b => {
			b.merged = b.merged.map(k => (k === other ? into : k));
			b.enabled[other] = false;
		});
		this.choose(into);
	}

	undo() {
		const { past, future, banks } = this;
		if (past.length) this.set({ past: past.slice(0, -1), future: [...future, banks], banks: past.at(-1) });
	}

	redo() {
		const { past, future, banks } = this;
		if (future.length) this.set({ past: [...past, banks], future: future.slice(0, -1), banks: future.at(-1) });
	}
}
