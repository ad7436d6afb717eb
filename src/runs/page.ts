// A page that opens offline: everything it shows is in it. Light and dark, and narrow enough for a phone.

/** Text as a page shows it, in attributes too. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

const style = `
:root { color-scheme: light dark; --ground: #fff; --text: #1f2328; --dim: #667079; --line: #d9dee3; --soft: #f4f6f8; --blue: #2563eb; --good: #14803c; --bad: #c4320a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --text: #e3e6e8; --dim: #98a1a9; --line: #333a40; --soft: #1d2226; --good: #4cc779; --bad: #ff8a65; } }
* { box-sizing: border-box; }
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1120px; padding: 32px 24px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; overflow-wrap: anywhere; } h2 { border-top: 1px solid var(--line); font-size: 20px; margin: 40px 0 12px; padding-top: 24px; } h3 { font-size: 16px; margin: 24px 0 8px; }
.note, small, figcaption, .dim { color: var(--dim); } .note { font-size: 13px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; } .tile { background: var(--soft); border-radius: 8px; flex: 1 1 150px; padding: 12px 16px; }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; } .tile span, .tile small { display: block; } .tile small { font-size: 12px; }
.curves { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); } figure { margin: 0; max-width: 640px; } figure svg { height: auto; width: 100%; } figcaption { font-size: 13px; text-align: center; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: 6px 8px; text-align: right; white-space: nowrap; } thead th { color: var(--dim); font-size: 12px; font-weight: 500; } th:first-child { text-align: left; } .wide { min-width: 160px; }
.warnings { background: var(--soft); border-left: 4px solid var(--bad); border-radius: 4px; padding: 12px 12px 12px 32px; } .held-out { color: #e8590c; }
.good { color: var(--good); font-weight: 600; } .unsure { font-weight: 600; }
.bar { background: var(--soft); border-radius: 3px; height: 14px; position: relative; } .bar i { display: block; position: absolute; }
.fill { background: var(--blue); border-radius: 3px; height: 100%; opacity: .55; } .interval { background: var(--text); height: 2px; opacity: .75; top: 6px; }
.mark { height: 100%; transform: translateX(-1px); width: 2px; } .blind { background: #e0662b; } .majority { background: #9333ea; } .random { background: #868e96; }
.key { display: inline-block; height: 11px; vertical-align: -1px; width: 3px; } .key.fill { border-radius: 2px; width: 14px; }
.gallery { align-items: start; display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
article { border: 1px solid var(--line); border-radius: 8px; display: grid; gap: 14px; grid-template-columns: 128px minmax(0, 1fr); padding: 12px; }
article img { border: 1px solid var(--line); border-radius: 4px; height: 128px; image-rendering: pixelated; object-fit: contain; width: 128px; }
.answer { border-left: 3px solid; margin-top: 6px; padding-left: 10px; } .answer + .answer { margin-top: 12px; } .answer p { margin: 0 0 4px; overflow-wrap: anywhere; } .right { border-color: var(--good); } .wrong { border-color: var(--bad); }
.right .verdict, .verdict.good { color: var(--good); } .wrong .verdict:not(.good), .verdict.bad { color: var(--bad); } .verdict { font-size: 13px; white-space: nowrap; }
dl { display: grid; font-size: 14px; gap: 0 10px; grid-template-columns: fit-content(50%) minmax(0, 1fr); margin: 0; } dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--soft); border-radius: 8px; font-size: 13px; overflow-x: auto; padding: 16px; } summary { cursor: pointer; }
`;

/** A page of HTML; `title` is text, `body` is HTML. */
export function htmlPage(title: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
${body}
</main>
</body>
</html>
`;
}

/** A table that scrolls sideways. Heads are text; cells are HTML, the first of a row being its head. */
export function htmlTable(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const head = heads.map((name) => (name === '' ? '<td></td>' : `<th scope="col">${escapeHtml(name)}</th>`)).join('');
  const body = rows.map(([first, ...rest]) => `<tr><th scope="row">${first}</th>${rest.map((cell) => `<td>${cell}</td>`).join('')}</tr>`);
  return `<div class="scroll" tabindex="0"><table><thead><tr>${head}</tr></thead><tbody>${body.join('\n')}</tbody></table></div>`;
}

/** The same of cells that are text. */
export const textTable = (heads: readonly string[], rows: readonly (readonly string[])[]): string =>
  htmlTable(
    heads,
    rows.map((row) => row.map(escapeHtml)),
  );
