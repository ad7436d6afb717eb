// Light, dark, or as the system has it.

import { recall, remember } from './memory.ts';

const THEMES = ['auto', 'light', 'dark'] as const;
type Theme = (typeof THEMES)[number];

/** Outlines of 24 x 24: half and half, a sun, a moon. */
const ICONS: Record<Theme, string> = {
  auto: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Zm0 0v18m3-17.5v17m3-14.5v12',
  light: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm0-6v2m0 16v2M2 12h2m16 0h2M5 5l1.4 1.4m11.2 11.2L19 19M5 19l1.4-1.4M17.6 6.4 19 5',
  dark: 'M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z',
};

function icon(path: string): SVGSVGElement {
  const [svg, line] = (['svg', 'path'] as const).map((tag) => document.createElementNS('http://www.w3.org/2000/svg', tag));
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  line.setAttribute('d', path);
  svg.append(line);
  return svg as SVGSVGElement;
}

/** Makes `button` go through the themes; what was chosen is kept. */
export function setUpTheme(button: HTMLButtonElement): void {
  const kept = recall('theme');
  let theme: Theme = THEMES.find((each) => each === kept) ?? 'auto';
  const show = () => {
    if (theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const label = `Theme: ${theme === 'auto' ? 'as the system' : theme}`;
    button.replaceChildren(icon(ICONS[theme]));
    button.setAttribute('aria-label', label);
    button.title = label;
  };
  button.addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remember('theme', theme === 'auto' ? '' : theme);
    show();
  });
  show();
}
