// The page of this moment, written by the page itself: for when the kernel that could write it is gone.
const asBase64 = data => {
	const all = u8(data);
	let text = '';
	for (let at = 0; at < all.length; at += 32768) text += String.fromCharCode(...all.subarray(at, at + 32768));
	return btoa(text);
};
const asText = (_, value) =>
	ArrayBuffer.isView(value) || value instanceof ArrayBuffer ? { base64: asBase64(value) } : value;

// as prockd_widgets.html writes it
function savedPage(model) {
	const { template, names } = model.get('page');
	const state = Object.fromEntries(names.map(name => [name, model.get(name)]));
	state.meta = { ...state.meta, kernel: false };
	const filled = {
		title: 'Prototype explorer',
		css: model.get('_css'),
		esm: model.get('_esm'),
		state: JSON.stringify(state, asText).replaceAll('<', '\\u003c'),
	};
	return template.replace(/%(title|css|esm|state)%/g, (_, name) => filled[name]);
}

// Says that the kernel is gone and offers to save what is shown. ipywidgets tells so when the comm of a model ends, and
// gives no model a new one; the class that it marks dead outputs with does not reach those of anywidget.
function kernelNotice(model, save) {
	const notice = el(
		'div.prk-notice',
		{ role: 'alert', hidden: true },
		'The kernel was restarted or has ended. All that is here can still be looked at, but edits no longer reach the bank: run the cell again to go on. ',
		button('Save this page', 'One file with what is shown and edited, which opens anywhere', () =>
			save('explorer.html', new Blob([savedPage(model)], { type: 'text/html' })),
		),
	);
	const tell = () => {
		notice.hidden = false;
	};
	model.on('comm_live_update', tell);
	return [notice, () => model.off('comm_live_update', tell)];
}
