// Shared by the widgets: elements, colours and shapes, the sprite sheet, heat-maps, likeness. Plain text only, no HTML.
const COLOURS = ['#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#F0E442', '#000000'];
const SHAPES = [
	'M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z',
	'M-3.6-3.6h7.2v7.2h-7.2z',
	'M0-4.8L4.8 0 0 4.8-4.8 0z',
	'M0-4.6L4.6 3.8h-9.2z',
	'M0 4.6L4.6-3.8h-9.2z',
	'M-1.6-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z',
	'M-4.4-2.4L-2.4-4.4 0-2 2.4-4.4 4.4-2.4 2 0 4.4 2.4 2.4 4.4 0 2-2.4 4.4-4.4 2.4-2 0z',
	'M0-5L1.4-1.6 5-1.5 2.2.8 3.2 4.4 0 2.3-3.2 4.4-2.2.8-5-1.5-1.4-1.6z',
];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const styleOf = n => [n % 8, (n + Math.floor(n / 8)) % 8]; // 64 pairs, as in prockd.plots

// 'tag' or 'tag.class'
function el(what, props = {}, ...children) {
	const [tag, name = ''] = what.split('.');
	const node = document.createElement(tag);
	node.className = name;
	for (const [key, value] of Object.entries(props)) {
		if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
		else if (key in node && key !== 'list') node[key] = value;
		else node.setAttribute(key, value);
	}
	node.append(...children.filter(child => child != null));
	return node;
}

// what is only a sign is read out by its title
const button = (text, title, onclick) =>
	el('button', { type: 'button', title, onclick, ...(!text[1] && { 'aria-label': title }) }, text);

// a colour with its shape; the black one turns white on dark pages
function symbol(n, size = 12) {
	const svg = document.createRange().createContextualFragment('<svg><path/></svg>').firstChild;
	const path = svg.firstChild;
	const [colour, shape] = styleOf(Math.max(0, n));
	for (const [key, value] of [
		['viewBox', '-5 -5 10 10'],
		['width', size],
		['height', size],
		['aria-hidden', 'true'],
	])
		svg.setAttribute(key, value);
	path.setAttribute('d', SHAPES[shape]);
	path.setAttribute('fill', n < 0 ? '#8A929A' : colour === 7 ? 'currentColor' : COLOURS[colour]);
	svg.append(path);
	return svg;
}

const u8 = data =>
	data ? new Uint8Array(data.buffer || data, data.byteOffset || 0, data.byteLength) : new Uint8Array();
const u16 = data => new Uint16Array(u8(data).slice().buffer);
const u32 = data => new Uint32Array(u8(data).slice().buffer);
const joined = arrays => {
	if (arrays.length === 1) return arrays[0];
	const all = new arrays[0].constructor(arrays.reduce((sum, array) => sum + array.length, 0));
	let at = 0;
	for (const array of arrays) {
		all.set(array, at);
		at += array.length;
	}
	return all;
};
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const count = n => n.toLocaleString('en-US');
const points = v => `${v > 0 ? '+' : v < 0 ? '−' : ''}${Math.abs(v).toFixed(1)}`;
const percent = x => `${Math.round(100 * x)} %`;
const dark = node => {
	const [r, g, b] = getComputedStyle(node)
		.backgroundColor.match(/[\d.]+/g)
		.map(Number);
	return r + g + b < 384;
};

// Heat: from nothing over yellow to red, so that what is low leaves the grey image as it is.
const HEAT = new Uint8ClampedArray(1024);
for (let i = 0; i < 256; i++) {
	const stops = [
		[255, 217, 51, 0],
		[255, 140, 0, 166],
		[230, 13, 77, 242],
	];
	const t = i / 127.5;
	const from = stops[t < 1 ? 0 : 1];
	const to = stops[t < 1 ? 1 : 2];
	const f = t < 1 ? t : t - 1;
	for (let c = 0; c < 4; c++) HEAT[4 * i + c] = from[c] + f * (to[c] - from[c]);
}

const abgr = hex => {
	const n = parseInt(hex.slice(1), 16);
	return (0xff000000 | ((n & 255) << 16) | (n & 0xff00) | (n >> 16)) >>> 0;
};
const heatColour = v => {
	const i = 4 * Math.round(255 * Math.min(1, v));
	return (0xff000000 | (HEAT[i + 2] << 16) | (HEAT[i + 1] << 8) | HEAT[i]) >>> 0;
};
const stampCache = {};

// the pixels of each shape at a size; below 6 no shape is to be told, and all are round
function shapesOf(size) {
	stampCache[size] ||= SHAPES.map(path => {
		const covered = [];
		const ctx = new OffscreenCanvas(size, size).getContext('2d');
		ctx.setTransform(size / 10, 0, 0, size / 10, size / 2, size / 2);
		ctx.fill(new Path2D(path));
		const { data } = ctx.getImageData(0, 0, size, size);
		for (let i = 0; i < size * size; i++) {
			const at = [i % size, Math.floor(i / size)];
			const far = Math.hypot(...at.map(v => v + 0.5 - size / 2));
			if (size < 6 ? far < 0.56 * size : data[4 * i + 3] > 110) covered.push(at);
		}
		return covered;
	});
	return stampCache[size];
}

// images in one picture; patches are cut from it
class Sheet {
	constructor(bitmap, meta) {
		const [h, w] = meta.grid;
		Object.assign(this, meta.sheet, { bitmap, h, w, images: meta.patches / (h * w) });
		this.small = new OffscreenCanvas(this.w, this.h);
	}
	// the picture that holds image m, its corner there, and how many of its pixels one of ours is
	source(m) {
		const { cell, columns, images, own } = this;
		if (own && m >= images) return [own, 0, 0, own.width / cell];
		return [this.bitmap, (m % columns) * cell, Math.floor(m / columns) * cell, 1];
	}
	image(ctx, m, x, y, side) {
		const [bitmap, left, top, zoom] = this.source(m);
		ctx.drawImage(bitmap, left, top, this.cell * zoom, this.cell * zoom, x, y, side, side);
	}
	// a patch with its surroundings, boxed
	patch(ctx, p, x, y, side, context = 1.3) {
		const { cell, h, w } = this;
		const N = h * w;
		const m = Math.floor(p / N);
		const n = p % N;
		const size = Math.max(cell / h, cell / w);
		const out = Math.min(cell, size * (1 + 2 * context));
		const fit = (index, step) => clamp((index + 0.5) * step - out / 2, 0, cell - out);
		const left = fit(n % w, cell / w);
		const top = fit(Math.floor(n / w), cell / h);
		const zoom = side / out;
		const [bitmap, u, v, fine] = this.source(m);
		ctx.imageSmoothingEnabled = true;
		ctx.drawImage(bitmap, u + left * fine, v + top * fine, out * fine, out * fine, x, y, side, side);
		box(
			ctx,
			x + (((n % w) * cell) / w - left) * zoom,
			y + ((Math.floor(n / w) * cell) / h - top) * zoom,
			(cell / w) * zoom,
			(cell / h) * zoom,
			1,
		);
	}
	// values 0..1 of one image's patches
	heat(ctx, values, side, { smooth, opacity, x = 0, y = 0 }) {
		const small = this.small.getContext('2d');
		const data = small.createImageData(this.w, this.h);
		for (let n = 0; n < values.length; n++) {
			const i = 4 * Math.round(255 * clamp(values[n], 0, 1));
			data.data.set(HEAT.subarray(i, i + 4), 4 * n);
		}
		small.putImageData(data, 0, 0);
		ctx.save();
		ctx.imageSmoothingEnabled = smooth;
		ctx.globalAlpha = opacity;
		ctx.drawImage(this.small, x, y, side, side);
		ctx.restore();
	}
}

async function openSheet(model) {
	const blob = new Blob([u8(model.get('sheet'))], { type: 'image/webp' });
	return new Sheet(await createImageBitmap(blob), model.get('meta'));
}

// two lines, so that one is seen on any ground
function outline(ctx, line, draw, outer = '#fff', inner = '#000') {
	for (const [strokeStyle, lineWidth] of [
		[outer, line + 1.5],
		[inner, line],
	]) {
		Object.assign(ctx, { strokeStyle, lineWidth });
		ctx.beginPath();
		draw();
		ctx.stroke();
	}
}
const box = (ctx, x, y, w, h, line = 2) => outline(ctx, line, () => ctx.rect(x, y, w, h), '#000', '#fff');

// one scale for all images
function colourBar(title) {
	const stops = [0, 64, 128, 192, 255].map(
		i => `rgba(${HEAT[4 * i]},${HEAT[4 * i + 1]},${HEAT[4 * i + 2]},${HEAT[4 * i + 3] / 255})`,
	);
	const strip = el('div.prk-strip', {});
	strip.style.backgroundImage = `linear-gradient(to right, ${stops.join(',')})`;
	const [name, end] = [el('span.prk-soft', {}, title), el('span', {}, '1')];
	return [el('div.prk-colours', {}, name, el('span', {}, '0'), strip, end), name, end];
}

// 1 for each patch that shows something of its picture, 0 in the bars beside it
function shownOf({ grid: [h, w], patches, shown }) {
	const mask = new Uint8Array(patches).fill(shown ? 0 : 1);
	for (const [m, [top, low, left, right]] of (shown || []).entries())
		for (let row = top; row < low; row++) mask.fill(1, (m * h + row) * w + left, (m * h + row) * w + right);
	return mask;
}

// two values of 4 bits a byte; a dot product is close to the cosine
class Codes {
	constructor(data, step, P) {
		const packed = u8(data);
		const D = step.length;
		this.D = D;
		this.P = P;
		this.step = step;
		this.values = new Int8Array(P * D);
		this.length = new Float32Array(P);
		for (let i = 0; i < packed.length; i++) {
			this.values[2 * i] = (packed[i] & 15) - 8;
			this.values[2 * i + 1] = (packed[i] >> 4) - 8;
		}
		for (let p = 0, at = 0; p < P; p++)
			for (let d = 0; d < D; d++, at++) this.length[p] += (this.values[at] * step[d]) ** 2;
	}
	// cosine of every patch to patch p
	like(p) {
		const { D, P, values, step, length } = this;
		const query = Float64Array.from(step, (s, d) => values[p * D + d] * s * s);
		const cosine = new Float32Array(P);
		for (let i = 0, at = 0; i < P; i++) {
			let sum = 0;
			for (let d = 0; d < D; d++, at++) sum += query[d] * values[at];
			const both = length[p] * length[i];
			cosine[i] = both ? sum / Math.sqrt(both) : -1; // a bar beside a picture is like nothing
		}
		return cosine;
	}
}

// the patch of each image that is most like the one asked for; images of N patches
const bestOfEach = (like, N) =>
	Array.from({ length: like.length / N }, (_, m) => {
		let best = m * N;
		for (let p = best; p < (m + 1) * N; p++) if (like[p] > like[best]) best = p;
		return best;
	});

// A canvas with a second one above it for what moves. Sizes are CSS pixels; both scale with the screen.
class Canvas {
	constructor(label, props = {}) {
		this.base = el('canvas');
		this.over = el('canvas', { tabIndex: 0, role: 'application', 'aria-label': label, ...props });
		this.node = el('div.prk-canvas', {}, this.base, this.over);
		this.width = this.height = 0;
	}
	// true where there is room to draw
	fit(height) {
		const width = this.node.clientWidth;
		const ratio = window.devicePixelRatio || 1;
		this.ratio = ratio;
		height = height ?? width;
		if (width !== this.width || height !== this.height || this.base.width !== Math.round(width * ratio)) {
			this.width = width;
			this.height = height;
			this.node.style.height = `${height}px`;
			for (const canvas of [this.base, this.over]) {
				canvas.width = Math.round(width * ratio);
				canvas.height = Math.round(height * ratio);
			}
		}
		return width > 0 && height > 0;
	}
	start(canvas = this.base) {
		const ctx = canvas.getContext('2d');
		ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
		ctx.clearRect(0, 0, this.width, this.height);
		return ctx;
	}
}

// Runs f once before the next frame, however often it is asked to.
function soon(f) {
	let waiting = false;
	return () => {
		if (waiting) return;
		waiting = true;
		requestAnimationFrame(() => {
			waiting = false;
			f();
		});
	};
}

// sizes (also of tabs that were hidden) and light or dark; returns the end of it
function watch(node, resized, themed) {
	const sizes = new ResizeObserver(resized);
	const theme = new MutationObserver(themed);
	const media = matchMedia('(prefers-color-scheme: dark)');
	sizes.observe(node);
	for (const root of [document.documentElement, document.body])
		theme.observe(root, { attributes: true, attributeFilter: ['class', 'data-jp-theme-light', 'data-theme', 'style'] });
	media.addEventListener('change', themed);
	return () => {
		sizes.disconnect();
		theme.disconnect();
		media.removeEventListener('change', themed);
	};
}

// a row of buttons of which one is pressed
function segmented(label, options, pressed, pick) {
	const buttons = options.map(([value, text, title]) =>
		el('button', { type: 'button', title: title || text, onclick: () => pick(value) }, text),
	);
	const show = value => {
		for (const [i, each] of buttons.entries()) each.setAttribute('aria-pressed', options[i][0] === value);
	};
	show(pressed);
	return { node: el('div.prk-segments', { role: 'group', 'aria-label': label }, ...buttons), show };
}

function opacitySlider(changed) {
	const about = 'Opacity of the heat-map';
	const oninput = e => changed(+e.target.value);
	const slider = el('input', { type: 'range', min: 0, max: 1, step: 0.05, title: about, oninput });
	slider.setAttribute('aria-label', about);
	return slider;
}

// earlier, which of how many, later: of a view that has a page and can be drawn again
function pageButtons(view) {
	const turn = by => () => {
		view.page += by;
		view.redraw();
	};
	return [button('‹', 'Earlier', turn(-1)), el('span.prk-soft', {}), button('›', 'Later', turn(1))];
}

function showPage([earlier, text, later], page, pages) {
	earlier.disabled = page === 0;
	later.disabled = page === pages - 1;
	text.textContent = `${page + 1} / ${pages}`;
}
