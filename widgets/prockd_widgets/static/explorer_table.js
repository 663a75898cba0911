// The table of prototypes, and what is edited above it.
class ExplorerTable extends ExplorerPatches {
	tableSection() {
		const { models, parts } = this.meta;
		this.whose = segmented(
			'Prototypes of',
			models.map((m, i) => [i, m.name]),
			0,
			i => this.set({ model: i, prototype: this.focus(i) }),
		);
		const columns = [
			['name', 'prototype', ''],
			['size', 'patches', 'Patches that prefer it'],
			...(parts
				? [
						[
							'purity',
							'part',
							'The part it shows, and the share of its strongest patches, one an image, that lie there',
						],
					]
				: []),
			['entropy', 'entropy', '0: its patches are sure, 1: undecided'],
			['best', 'best', 'Its nearest patch'],
			['other', 'nearest', 'The most similar prototype, with the cosine'],
		];
		this.headings = columns.map(([key, text, about]) => {
			const number = key === 'size' || key === 'entropy';
			const sorter = button(text, about || text, () => this.sortBy(key));
			return [key, el(number ? 'th.prk-number' : 'th', { scope: 'col' }, sorter)];
		});
		this.body = el('tbody');
		const head = el('thead', {}, el('tr', {}, ...this.headings.map(([, th]) => th)));
		this.scroll = el('div.prk-scroll', {}, el('table', { 'aria-label': 'Prototypes' }, head, this.body));
		return el('section.prk-table', {}, el('div.prk-edit', {}, ...this.editors()), this.scroll);
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
		this.mergeWith = el('select', {
			title: label,
			onchange: e => {
				const other = +e.target.value;
				e.target.value = '';
				this.merge(this.prototype, other);
			},
		});
		this.mergeWith.setAttribute('aria-label', label);
		return [this.two ? this.whose.node : null, this.nameField, this.switchButton, this.mergeWith];
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

	// by a column; once more turns the order round. The largest and the purest come first
	sortBy(key) {
		const first = key === 'size' || key === 'purity' ? -1 : 1;
		this.sort = [key, this.sort[0] === key ? -this.sort[1] : first];
		this.rowsOf = null;
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
		this.set({ past: [...this.past, before].slice(-50), banks });
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
		const past = this.past;
		if (past.length) this.set({ banks: past.at(-1), past: past.slice(0, -1) });
	}
}
