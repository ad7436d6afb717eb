// The picture: chosen, dropped, pasted or an example, and the map over it.

import type { AnswerExplanation } from './answerer.ts';
import { byId } from './dom.ts';
import { drawHeat, strongestPlace } from './heat-map.ts';

export interface PicturePanel {
  readonly picture: File | undefined;
  /** Takes another picture. */
  show(picture: File): void;
  /** Lays a map over the picture, which `about` names for those who do not see it. */
  showMap(map: readonly number[], explanation: AnswerExplanation, about: string): void;
  hideMap(): void;
}

export interface PicturePanelOptions {
  /** Another picture, or none. */
  onChange(): void;
  /** A file that is no picture; the text is a sentence. */
  onProblem(text: string): void;
}

export function setUpPicture({ onChange, onProblem }: PicturePanelOptions): PicturePanel {
  const [frame, empty, actions] = ['frame', 'stage-empty', 'picture-actions'].map((id) => byId(id));
  const image = byId<HTMLImageElement>('picture');
  const heat = byId<HTMLCanvasElement>('heat');
  const input = byId<HTMLInputElement>('file');
  let picture: File | undefined;

  function hideMap(): void {
    heat.hidden = true;
    frame.classList.remove('explained');
  }

  function show(file: File | undefined): void {
    hideMap();
    picture = file;
    URL.revokeObjectURL(image.src);
    image.removeAttribute('src');
    frame.hidden = actions.hidden = file === undefined;
    empty.hidden = file !== undefined;
    if (file) {
      image.src = URL.createObjectURL(file);
      image.alt = `The picture that is asked about: ${file.name || 'pasted'}`;
    }
    onChange();
  }

  function take(files: Iterable<File>): void {
    const all = [...files];
    const file = all.find(({ type }) => type.startsWith('image/'));
    if (file) show(file);
    else if (all.length > 0) onProblem('This is no picture. Choose a PNG, JPEG, WebP or GIF.');
  }

  image.addEventListener('load', () => frame.style.setProperty('--ratio', String(image.naturalWidth / image.naturalHeight)));
  image.addEventListener('error', () => {
    if (!picture) return;
    show(undefined);
    onProblem('This picture cannot be read. It may be damaged, or in a format that the browser does not know.');
  });
  for (const id of ['choose', 'change']) byId(id).addEventListener('click', () => input.click());
  input.addEventListener('change', () => {
    take(input.files ?? []);
    input.value = '';
  });
  byId('remove').addEventListener('click', () => {
    show(undefined);
    byId('choose').focus();
  });
  for (const button of byId('examples').querySelectorAll('button'))
    button.addEventListener('click', async () => {
      const { src, alt } = button.querySelector('img')!;
      try {
        const blob = await (await fetch(src)).blob();
        show(new File([blob], alt, { type: blob.type }));
      } catch {
        onProblem('The server cannot be reached. Is it still running?');
      }
    });
  acceptDrops(take);
  document.addEventListener('paste', (event) => {
    const pasted = pastedFiles(event);
    if (pasted && !event.defaultPrevented) take(pasted);
  });

  return {
    get picture() {
      return picture;
    },
    show,
    showMap(map, explanation, about) {
      drawHeat(heat, map, explanation);
      const place = strongestPlace(map, explanation.grid);
      heat.setAttribute('aria-label', `Map of ${about}: ${place ? `strongest at the ${place}` : 'zero everywhere'}`);
      heat.hidden = false;
      frame.classList.add('explained');
    },
    hideMap,
  };
}

/**
 * Files that are pasted; undefined for text, which goes where the cursor is, also that of office software,
 * which adds a picture of it.
 */
export function pastedFiles({ clipboardData }: ClipboardEvent): FileList | undefined {
  const isText = !clipboardData || clipboardData.types.includes('text/plain');
  return isText || clipboardData.files.length === 0 ? undefined : clipboardData.files;
}

/** Files may be dropped anywhere on the page; what takes them by itself says so by `preventDefault`. */
function acceptDrops(take: (files: Iterable<File>) => void): void {
  let inside = 0;
  const mark = (change: number) => {
    inside = Math.max(0, inside + change);
    document.body.classList.toggle('dropping', inside > 0);
  };
  document.addEventListener('dragenter', () => mark(1));
  document.addEventListener('dragleave', () => mark(-1));
  document.addEventListener('dragover', (event) => event.preventDefault());
  document.addEventListener('drop', (event) => {
    const isTaken = event.defaultPrevented;
    event.preventDefault();
    mark(-inside);
    if (!isTaken) take(event.dataTransfer?.files ?? []);
  });
}
