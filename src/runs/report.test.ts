import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { judgeSample, type Sample, scoreSamples } from '../evaluate/samples.ts';
import type { MetricEvent } from './metrics.ts';
import { chooseGallery, renderReport, writeReport } from './report.ts';

async function madeUpRun() {
  const folder = mkdtempSync(join(tmpdir(), 'report-'));
  const drawing =
    '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="64" height="64" fill="#fe9"/><circle cx="20" cy="24" r="12"/></svg>';
  writeFileSync(join(folder, 'a.png'), await sharp(Buffer.from(drawing)).png().toBuffer());
  const samples: Sample[] = [];
  for (const split of ['unseen-artist', 'unseen-scenes']) {
    for (let i = 0; i < 12; i++) {
      const common = { image: 'a.png', split, blindAnswer: 'no' };
      samples.push(
        judgeSample({
          ...common,
          id: `e${i}`,
          task: 'existence',
          prompt: '<image>\nIs there a <b>cat</b>?',
          expected: 'yes',
          answer: i % 3 ? 'Yes' : 'No',
        }),
      );
      samples.push(judgeSample({ ...common, id: `c${i}`, task: 'count', prompt: 'How many?', expected: '2', answer: i % 4 ? '2' : '3' }));
    }
  }
  const metrics = ['pretrain', 'finetune'].flatMap((stage, index) =>
    Array.from(
      { length: 30 },
      (_, i): MetricEvent => ({
        type: 'step',
        stage,
        step: 10 * (i + 1),
        time: 1.75e9,
        epoch: i / 30,
        loss: (4 - index) * Math.exp(-i / 9) + 0.3 + 0.1 * Math.sin(9 * i),
        learningRate: 1e-3,
        gradNorm: 1,
        tokensPerSecond: 12_000 + i,
        seconds: i,
      }),
    ),
  );
  const stages = [
    { name: 'pretrain', seconds: 61.2, steps: 300, firstLoss: 4.31, lastLoss: 0.52 },
    { name: 'finetune', seconds: 122, steps: 300, firstLoss: 3.3, lastLoss: 0.4 },
  ];
  const summary = { wallSeconds: 251, peakRssMb: 1234.5, stages, scores: scoreSamples(samples, { count: ['2', '1'] }) };
  const gallery = chooseGallery(samples, ({ image }) => join(folder, image));
  return { folder, samples, input: { title: 'Run <demo>', recipe: 'task: llava\n', metrics, summary, gallery } };
}

describe('renderReport', () => {
  it('is one self-contained page', async () => {
    const { folder, input } = await madeUpRun();
    const path = join(folder, 'report.html');
    writeReport(path, input);
    const html = readFileSync(path, 'utf8');
    expect(html).not.toMatch(/<script|<link|@import|url\((?!#)/);
    // The only URLs are XML namespaces.
    expect([...html.matchAll(/https?:\/\/[^"'\s<]+/g)].every(([address]) => address.startsWith('http://www.w3.org/'))).toBe(true);
    expect(html).toContain('src="data:image/png;base64,');
  });

  it('shows curves, scores with baselines, answers and cost', async () => {
    const { input } = await madeUpRun();
    const html = renderReport(input);
    expect(html.match(/<svg/g)).toHaveLength(2);
    expect(html).toContain('Run &#60;demo&#62;');
    expect(html).toContain('Is there a &#60;b&#62;cat&#60;/b&#62;?');
    expect(html).toContain(input.summary.scores['unseen-artist'].count.ciLow.toFixed(3));
    expect(html).not.toContain('left out');
    const [first, ...rest] = input.summary.stages;
    const summary = { ...input.summary, stages: [{ ...first, skipped: 3 }, ...rest] };
    expect(renderReport({ ...input, summary })).toContain(`3 bad samples of ${first.name} were left out (skipped.jsonl)`);
    expect(html).toContain('right');
    expect(html).toContain('wrong');
    expect(html).toContain('1,235 MB');
    expect(html).toContain('4:11');
    expect(html).not.toMatch(/undefined|NaN/);
  });

  it('shows what was trained, what was held out, and warnings', async () => {
    const { input } = await madeUpRun();
    const at = { stage: 'finetune', time: 1.75e9 };
    const group = { name: 'language_model, *.q_proj', tensors: 4, decayed: 4, numbers: 147456, learningRate: 2e-5, weightDecay: 0.1 };
    const html = renderReport({
      ...input,
      metrics: [
        ...input.metrics,
        { ...at, type: 'trains', step: 0, groups: [group], frozen: 7 },
        { ...at, type: 'held-out', step: 0, seconds: 1, loss: 4.25, samples: 12 },
        { ...at, type: 'held-out', step: 300, seconds: 1, loss: 0.75, samples: 12, imageGain: 1.5 },
        { ...at, type: 'warning', step: 80, sign: 'loss-spike', message: 'the loss is <9>' },
      ],
    });
    expect(html).toContain('language_model, *.q_proj</td><td>4</td><td>147,456</td>');
    expect(html).toContain('on 12 samples held out</span> 4.250 &rarr; 0.750, and 1.500 more with the pictures of others');
    expect(html).toContain('<b>finetune, step 80</b>: the loss is &#60;9&#62;');
    expect(renderReport(input)).not.toContain('class="warnings"');
    // a line and two dots more in one of the two charts
    expect(html.match(/#e8590c/g)!.length).toBeGreaterThan(renderReport(input).match(/#e8590c/g)!.length);
  });

  it('says what is not finite', async () => {
    const { input } = await madeUpRun();
    const event = { type: 'held-out', stage: 'finetune', time: 1.75e9, seconds: 1, samples: 12 } as const;
    const losses = [4.25, Number.POSITIVE_INFINITY, Number.NaN].map((loss, i): MetricEvent => ({ ...event, step: 100 * i, loss }));
    const [{ type: _, ...first }] = input.metrics.filter(({ type }) => type === 'step');
    const html = renderReport({
      ...input,
      metrics: [...input.metrics, { ...first, type: 'step', step: 310, loss: Number.NaN } as MetricEvent, ...losses],
      summary: { ...input.summary, stages: input.summary.stages.map((stage) => ({ ...stage, lastLoss: Number.NaN })) },
    });
    expect(html).toContain('on 12 samples held out</span> 4.250 &rarr; not finite');
    expect(html).toContain('<td>not finite</td>');
    expect(html).not.toMatch(/NaN|Infinity/);
  });

  it('says what is missing instead of failing', async () => {
    const html = renderReport({
      title: 'x',
      recipe: '',
      metrics: [],
      gallery: [],
      summary: { wallSeconds: 0, peakRssMb: 0, stages: [], scores: {} },
    });
    expect(html).toContain('This run was not scored');
    expect(html).toContain('No steps were logged');
  });
});

describe('chooseGallery', () => {
  it('takes as many pictures of each split, spread over all of them', () => {
    const samples = Array.from({ length: 100 }, (_, i) =>
      judgeSample({
        id: String(i),
        image: `${Math.floor(i / 2)}.png`,
        task: 'count',
        split: i < 60 ? 'a' : 'b',
        prompt: '',
        expected: '1',
        answer: '1',
      }),
    );
    const chosen = chooseGallery(samples, ({ image }) => `/pictures/${image}`, 3, 1);
    expect(chosen.map(({ imagePath }) => imagePath)).toEqual(['0', '10', '20', '30', '36', '43'].map((name) => `/pictures/${name}.png`));
  });

  it('shows different tasks', () => {
    const tasks = ['existence', 'count', 'count', 'place'];
    const samples = [0, 1].flatMap((picture) =>
      tasks.map((task, i) =>
        judgeSample({ id: `${picture}${i}`, image: `${picture}.png`, task, split: 'a', prompt: '', expected: '1', answer: '1' }),
      ),
    );
    const chosen = chooseGallery(samples, ({ image }) => image, 2, 2);
    expect(chosen.map(({ task }) => task)).toEqual(['existence', 'count', 'count', 'place']);
  });
});
