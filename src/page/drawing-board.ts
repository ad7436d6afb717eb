// A board that a person draws a picture on, to teach it.

import { byId } from './dom.ts';

/** Width of a stroke as a share of the board: thick, as what is drawn is seen small. */
const STROKE = 1 / 16;

/** `onDrawn` is given each picture as it is added. */
export function setUpDrawing(onDrawn: (picture: File) => void): void {
  const canvas = byId<HTMLCanvasElement>('board');
  const [add, clear] = ['add-drawing', 'clear-drawing'].map((id) => byId<HTMLButtonElement>(id));
  const color = byId<HTMLInputElement>('pen-color');
  const context = canvas.getContext('2d')!;
  let isBlank = true;
  let count = 0;

  function wipe(): void {
    // a picture without a background would be read on black
    context.fillStyle = 'white';
    context.fillRect(0, 0, canvas.width, canvas.height);
    isBlank = true;
    add.disabled = clear.disabled = true;
  }

  const placeOf = ({ clientX, clientY }: PointerEvent): [number, number] => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return [((clientX - left) / width) * canvas.width, ((clientY - top) / height) * canvas.height];
  };

  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    Object.assign(context, { strokeStyle: color.value, lineWidth: STROKE * canvas.width, lineCap: 'round', lineJoin: 'round' });
    context.beginPath();
    const [x, y] = placeOf(event);
    context.moveTo(x, y);
    // a point is a stroke too
    context.lineTo(x, y);
    context.stroke();
    isBlank = false;
    add.disabled = clear.disabled = false;
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    context.lineTo(...placeOf(event));
    context.stroke();
  });
  clear.addEventListener('click', wipe);
  add.addEventListener('click', () => {
    if (isBlank) return;
    const name = `drawing ${++count}.png`;
    // the picture is taken before the board is wiped
    canvas.toBlob((blob) => blob && onDrawn(new File([blob], name, { type: 'image/png' })), 'image/png');
    wipe();
  });
  wipe();
}
