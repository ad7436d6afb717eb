// llava-gemma pull against a hub on this machine: what is downloaded, how it resumes, and what happens when
// something fails.
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { saveCheckpoint } from '../src/checkpoint/checkpoint.ts';
import { type HubServer, startHub } from './hub-server.ts';
import { bin, cli, type Outcome, spawnCli } from './toy.ts';

const pauses: number[] = [];
let inPause = () => {};
vi.mock('node:timers/promises', () => ({
  setTimeout: async (milliseconds: number) => {
    pauses.push(milliseconds);
    inPause();
  },
}));

const repo = 'someone/tiny';
const folder = `models/${repo}`;
const before = process.cwd();
let hub: HubServer;
let scratch: string;
/** A model as in a folder of ours, in three shards. */
let model: Record<string, Buffer>;

beforeEach(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'pull-'));
  process.chdir(scratch);
  hub = await startHub();
  for (const name of ['HF_TOKEN', 'HF_TOKEN_PATH', 'HTTPS_PROXY']) vi.stubEnv(name, '');
  vi.stubEnv('HF_ENDPOINT', hub.url);
  vi.stubEnv('HF_HOME', join(scratch, 'huggingface'));
  pauses.length = 0;
  inPause = () => {};
  const tensors = ['a', 'b', 'c'].map(
    (name, i) => [name, { shape: [100, 250], data: new Float32Array(25_000).fill(i) }] as [string, { shape: number[]; data: Float32Array }],
  );
  await saveCheckpoint('source', { config: { model_type: 'gemma' }, tensors: new Map(tensors), dtype: 'F32', maxShardSize: 100_000 });
  model = {
    ...Object.fromEntries(readdirSync('source').map((name) => [name, readFileSync(join('source', name))])),
    'tokenizer.json': Buffer.from(JSON.stringify({ vocab: 'x'.repeat(5000) })),
    LICENSE: Buffer.from('do as you like'),
    'README.md': Buffer.from('# tiny'),
  };
  rmSync('source', { recursive: true });
});

afterEach(async () => {
  process.chdir(before);
  await hub.close();
  vi.unstubAllEnvs();
  rmSync(scratch, { recursive: true, force: true });
});

const shard = (i: number, of = 3) => `model-0000${i}-of-0000${of}.safetensors`;
const pull = (...words: string[]) => cli('pull', repo, ...words);
const namesIn = (dir: string) => readdirSync(dir).sort();
const rangesOf = (name: string) => hub.downloads.filter(({ path }) => path === name).map(({ range }) => range);

function expectFolder(dir: string, files: Record<string, Buffer>): void {
  expect(namesIn(dir)).toEqual([...Object.keys(files), 'hub.json'].sort());
  for (const [name, content] of Object.entries(files)) expect(readFileSync(join(dir, name)).equals(content), name).toBe(true);
}

/** Expects one sentence on stderr besides the download's status. */
function expectFailure({ code, stderr }: Outcome, ...parts: (string | RegExp)[]): void {
  expect(code, stderr).toBe(1);
  const errors = stderr.split('\n').filter((line) => line.startsWith('error: '));
  expect(errors, stderr).toHaveLength(1);
  expect(stderr.trimEnd().endsWith(errors[0]), stderr).toBe(true);
  for (const part of parts) expect(errors[0]).toMatch(part);
}

describe('a pull', () => {
  it('gets what is read of a model, and says what is next', async () => {
    const commit = hub.commit(repo, {
      ...model,
      'pytorch_model.bin': 'old',
      'model.onnx': 'other',
      'model.gguf': 'other',
      'train.py': 'code',
      [shard(1, 2)]: 'of another set',
      [shard(2, 2)]: 'of another set',
    });
    const { code, stdout, stderr } = await pull();
    expect(code, stderr).toBe(0);
    expectFolder(folder, model);
    expect(JSON.parse(readFileSync(join(folder, 'hub.json'), 'utf8'))).toMatchObject({ repo, revision: 'main', commit });
    expect(stdout).toMatch(`pulled ${repo} at ${commit.slice(0, 12)} into ${folder} (8 files, `);
    expect(stdout).toMatch(`llava-gemma info ${folder}\n`);
    expect((await cli('info', folder, '--json')).stdout).toContain('"F32": 75000');
  });

  it('prints plain lines where there is no terminal', async () => {
    hub.commit(repo, model);
    const { stderr } = await pull();
    expect(stderr).toMatch(/^\d+ kB to download$/m);
    expect(stderr).toMatch(/^model-00002-of-00003\.safetensors {2}100 kB$/m);
    expect(stderr).not.toContain('\r');
    expect(stderr).not.toContain('\x1b');
  });

  it('redraws one line on a terminal', async () => {
    hub.commit(repo, model);
    const terminal = vi
      .spyOn(process, 'stderr', 'get')
      .mockReturnValue(Object.assign(Object.create(process.stderr), { isTTY: true, columns: 200 }));
    vi.stubEnv('CI', '');
    try {
      const { stderr } = await pull();
      expect(stderr).toMatch(/^.*tokenizer\.json {2}[\d.]+ kB of 5\.01 kB {2}[\d.]+ \w+\/s {2}ETA \d:\d\d.*\r/m);
    } finally {
      terminal.mockRestore();
    }
  });

  it('downloads nothing the second time, and only the file that is damaged the third time', async () => {
    const commit = hub.commit(repo, model);
    await pull('--out', 'here');
    hub.downloads.length = 0;
    const again = await pull('--out', 'here');
    expect(again.code, again.stderr).toBe(0);
    expect(again.stdout).toMatch(`here already holds ${repo} at ${commit.slice(0, 12)}\n`);
    expect(hub.downloads).toEqual([]);
    const damaged = readFileSync(join('here', shard(2)));
    damaged[damaged.length - 1] ^= 1;
    writeFileSync(join('here', shard(2)), damaged);
    await pull('--out', 'here');
    expect(hub.downloads.map(({ path }) => path)).toEqual([shard(2)]);
    expectFolder('here', model);
  });

  it('of one file of weights takes that, as reading the folder does', async () => {
    const single = { 'config.json': model['config.json'], 'model.safetensors': model[shard(1)] };
    hub.commit(repo, { ...model, ...single });
    await pull();
    const { 'model.safetensors.index.json': _, [shard(1)]: a, [shard(2)]: b, [shard(3)]: c, ...rest } = model;
    expectFolder(folder, { ...rest, ...single });
  });

  it('takes the revision that is asked for', async () => {
    const old = hub.commit(repo, { ...model, 'README.md': Buffer.from('# old') });
    hub.commit(repo, model);
    await pull('--revision', old);
    expect(readFileSync(join(folder, 'README.md'), 'utf8')).toBe('# old');
    expectFailure(await pull('--revision', 'nowhere'), `${repo} has no revision "nowhere"`);
  });

  it('of an original LLaVA says how to get and join its vision tower', async () => {
    const config = { model_type: 'llava_gemma', mm_vision_tower: 'openai/clip-vit-large-patch14-336', torch_dtype: 'bfloat16' };
    hub.commit(repo, { ...model, 'config.json': JSON.stringify(config) });
    const { stdout } = await pull('--out', 'native');
    expect(stdout).toContain('  llava-gemma pull openai/clip-vit-large-patch14-336\n');
    expect(stdout).toContain(
      '  llava-gemma convert native native-joined --vision-tower models/openai/clip-vit-large-patch14-336 --dtype bfloat16\n',
    );
  });
});

describe('a download that breaks off', () => {
  it('goes on at the next byte by itself', async () => {
    hub.commit(repo, model);
    hub.drops.set(shard(2), [30_000, 20_000]);
    const { code, stderr } = await pull();
    expect(code, stderr).toBe(0);
    expect(rangesOf(shard(2))).toEqual([undefined, 'bytes=30000-', 'bytes=50000-']);
    // there was progress in between
    expect(pauses).toEqual([1000, 1000]);
    expect(stderr).toMatch(/trying again in 1 s/);
    expectFolder(folder, model);
  });

  it('for good tells how to go on, leaves no model, and goes on with the next pull', async () => {
    hub.commit(repo, model);
    hub.drops.set(shard(2), [30_000, ...Array(6).fill(0)]);
    expectFailure(await pull(), 'the download broke off', 'the same command goes on from there');
    expect(pauses).toEqual([1000, 2000, 4000, 8000, 16000]);
    expect(namesIn(folder).filter((name) => !name.endsWith('.incomplete'))).toEqual(['hub.json']);
    hub.drops.clear();
    hub.downloads.length = 0;
    const { code, stderr } = await pull();
    expect(code, stderr).toBe(0);
    expect(hub.downloads.map(({ path, range }) => [path, range])).toEqual([
      [shard(2), 'bytes=30000-'],
      [shard(3), undefined],
      ['config.json', undefined],
    ]);
    expectFolder(folder, model);
  });

  it('begins again where the server knows no ranges', async () => {
    hub.commit(repo, model);
    hub.ignoresRanges = true;
    hub.drops.set(shard(1), [30_000]);
    const { code, stderr } = await pull();
    expect(code, stderr).toBe(0);
    expectFolder(folder, model);
  });

  it('begins again where the file is another one since', async () => {
    hub.commit(repo, model);
    hub.drops.set(shard(2), [30_000, ...Array(6).fill(0)]);
    await pull();
    const changed = { ...model, [shard(2)]: Buffer.from(model[shard(2)].map((byte, i) => (i < 40_000 ? byte : byte ^ 3))) };
    const commit = hub.commit(repo, changed);
    hub.drops.clear();
    hub.downloads.length = 0;
    const { code, stdout, stderr } = await pull();
    expect(code, stderr).toBe(0);
    expect(stdout).toContain(commit.slice(0, 12));
    expect(rangesOf(shard(2))).toEqual([undefined]);
    // and files that are the same in both versions are not downloaded again
    expect(rangesOf(shard(1))).toEqual([]);
    expectFolder(folder, changed);
  });

  it('at Ctrl-C keeps what came, and until then has the folder to itself', async () => {
    hub.commit(repo, model);
    // the server goes silent after these bytes, and keeps the connection open
    hub.stalls.set(shard(1), 30_000);
    const { child, outcome } = spawnCli(['pull', repo]);
    await vi.waitFor(
      () => {
        const partial = existsSync(folder) && readdirSync(folder).find((name) => name.startsWith(`${shard(1)}.`));
        expect(partial && readFileSync(join(folder, partial)).length).toBe(30_000);
      },
      { timeout: 30_000, interval: 50 },
    );
    expectFailure(await pull(), `${folder}: a pull is going on there (process ${child.pid} on `, 'wait for it or stop it');
    child.kill('SIGINT');
    const { code, stderr } = await outcome;
    expect(code, stderr).toBe(130);
    expect(stderr).toContain('interrupted; the same command goes on from there');
    hub.stalls.clear();
    await pull();
    expect(rangesOf(shard(1))).toEqual([undefined, 'bytes=30000-']);
    expectFolder(folder, model);
  });
});

describe('a newer version', () => {
  it('replaces the older one as a whole, and takes away what is no longer of it', async () => {
    hub.commit(repo, model);
    await pull();
    const { 'model.safetensors.index.json': _, [shard(1)]: a, [shard(2)]: b, [shard(3)]: c, ...rest } = model;
    const newer = { ...rest, 'model.safetensors': a, 'README.md': Buffer.from('# newer') };
    hub.commit(repo, newer);
    writeFileSync(join(folder, 'notes.txt'), 'mine');
    hub.drops.set('model.safetensors', Array(7).fill(0));
    expectFailure(await pull(), 'broke off');
    for (const [name, content] of Object.entries(model)) expect(readFileSync(join(folder, name)).equals(content), name).toBe(true);
    const { code, stderr } = await pull();
    expect(code, stderr).toBe(0);
    expect(readFileSync(join(folder, 'notes.txt'), 'utf8')).toBe('mine');
    rmSync(join(folder, 'notes.txt'));
    expectFolder(folder, newer);
  });
});

describe('content', () => {
  it.each([shard(1), 'config.json'])('of %s that is not what the hub lists is refused and removed', async (name) => {
    hub.commit(repo, model);
    hub.corrupt.add(name);
    expectFailure(await pull(), join(folder, name), /another (sha256|git-sha1) than the hub says/, 'it was removed');
    expect(namesIn(folder).filter((other) => other.startsWith(`${name}.`) && other !== 'config.json')).toEqual([]);
    hub.corrupt.clear();
    expect((await pull()).code).toBe(0);
    expectFolder(folder, model);
  });

  it('to which something else has added is refused and removed', async () => {
    hub.commit(repo, model);
    hub.drops.set(shard(1), [30_000]);
    inPause = () => appendFileSync(join(folder, readdirSync(folder).find((name) => name.startsWith(`${shard(1)}.`))!), 'x');
    expectFailure(await pull(), join(folder, shard(1)), 'another length than the', 'it was removed');
    inPause = () => {};
    expect((await pull()).code).toBe(0);
    expectFolder(folder, model);
  });

  it.each(['../evil.json', '/etc/evil', 'a\\..\\evil', 'C:evil', 'a/../../evil'])('under the name %s is refused', async (path) => {
    hub.commit(repo, model);
    hub.listed.push({ type: 'file', path, size: 3, oid: 'a'.repeat(40) });
    expectFailure(await pull(), 'points out of its folder; nothing was downloaded');
    expect(hub.downloads).toEqual([]);
    expect(existsSync(folder)).toBe(false);
  });

  it.each(['../evil.safetensors', 'hub.json'])('that the index wants from %s is refused', async (file) => {
    hub.commit(repo, { ...model, 'hub.json': '{}', 'model.safetensors.index.json': JSON.stringify({ weight_map: { a: file } }) });
    expectFailure(await pull(), file);
    expect(JSON.parse(readFileSync(join(folder, 'hub.json'), 'utf8')).repo).toBe(repo);
  });
});

describe('a token', () => {
  const gate = () => {
    hub.commit(repo, model);
    hub.gated.set(repo, ['hf_right']);
  };

  it('is asked for where a licence must be accepted, and never shown', async () => {
    gate();
    expectFailure(await pull(), `accept it at ${hub.url}/${repo} and give a token`, 'HF_TOKEN');
    const { code, stdout, stderr } = await pull('--token', 'hf_other');
    expectFailure({ code, stdout, stderr }, 'with the account of the token from --token');
    expect(stdout + stderr).not.toContain('hf_other');
  });

  it('goes to the hub and to nobody else', async () => {
    gate();
    const { code, stdout, stderr } = await pull('--token', 'hf_right');
    expect(code, stderr).toBe(0);
    expect(stdout + stderr).not.toContain('hf_right');
    expect(new Set(hub.asked.map(({ authorization }) => authorization))).toEqual(new Set(['Bearer hf_right']));
    expect(hub.askedElsewhere.length).toBeGreaterThan(0);
    expect(new Set(hub.askedElsewhere.map(({ authorization }) => authorization))).toEqual(new Set([undefined]));
    for (const name of namesIn(folder)) expect(readFileSync(join(folder, name), 'latin1')).not.toContain('hf_right');
  });

  it.each<[string, () => void]>([
    ['HF_TOKEN', () => vi.stubEnv('HF_TOKEN', 'hf_right')],
    ['HF_HOME', () => writeFileSync(join(mkdirSync(join(scratch, 'huggingface'), { recursive: true })!, 'token'), 'hf_right\n')],
    [
      'HF_TOKEN_PATH',
      () => {
        writeFileSync('my-token', 'hf_right');
        vi.stubEnv('HF_TOKEN_PATH', join(scratch, 'my-token'));
      },
    ],
  ])('is found through %s', async (_, set) => {
    gate();
    set();
    const { code, stderr } = await pull();
    expect(code, stderr).toBe(0);
  });

  it('that cannot be one is not shown either', async () => {
    gate();
    const { code, stdout, stderr } = await pull('--token', 'hf_ri\nght');
    expectFailure({ code, stdout, stderr }, 'the token from --token holds characters');
    expect(stderr).not.toContain('hf_ri');
  });

  it('that is not valid is told from a model that is not there', async () => {
    gate();
    hub.statuses.push(401);
    expectFailure(await pull('--token', 'hf_right'), 'refuses the token from --token', `${hub.url}/settings/tokens`);
  });
});

describe('trouble', () => {
  it('with reaching the hub is told at once, and names the way out', async () => {
    await hub.close();
    expectFailure(await pull(), `cannot reach ${hub.url}: `, 'ECONNREFUSED', 'on another machine and copy the folder');
    expect(pauses).toEqual([]);
    expect(existsSync(folder)).toBe(false);
    hub = await startHub();
  });

  it('that passes is waited for', async () => {
    hub.commit(repo, model);
    hub.statuses.push(503, 429);
    const { code, stderr } = await pull();
    expect(code, stderr).toBe(0);
    expect(pauses).toEqual([1000, 2000]);
  });

  it('with a listing that breaks off is waited for, too', async () => {
    hub.commit(repo, model);
    hub.cutListings = 1;
    const { code, stderr } = await pull();
    expect(code, stderr).toBe(0);
    expectFolder(folder, model);
  });

  it('with something else than a hub is told', async () => {
    vi.stubEnv('HF_ENDPOINT', `${hub.url}/nothing`);
    expectFailure(await pull(), 'has no model');
    vi.stubEnv('HF_ENDPOINT', 'huggingface.co');
    expectFailure(await pull(), 'HF_ENDPOINT is "huggingface.co"');
  });

  it.each(['nobody', 'a/b/c', '../up', 'some one/x', 'someone/', '-x/y'])('with the name %s', async (name) => {
    const { code, stderr, stdout } = await cli('pull', '--', name);
    expectFailure({ code, stderr, stdout }, name === 'nobody' ? 'has no model nobody, or it is private' : 'is no name of a model');
  });

  it('with an address in place of a name says the name', async () => {
    expectFailure(await cli('pull', 'https://huggingface.co/Intel/llava-gemma-2b/tree/main'), /write Intel\/llava-gemma-2b$/);
  });

  it('with a model that is not in a format that is read', async () => {
    const { 'config.json': config } = model;
    hub.commit('someone/data', { 'README.md': 'words' });
    expectFailure(await cli('pull', 'someone/data'), 'someone/data has no config.json');
    hub.commit('someone/pickled', { 'config.json': config, 'pytorch_model.bin': 'x' });
    expectFailure(await cli('pull', 'someone/pickled'), 'only pytorch_model.bin, which is not read', '--revision refs/pr/NUMBER');
    const { [shard(3)]: _, ...torn } = model;
    hub.commit('someone/torn', torn);
    expectFailure(await cli('pull', 'someone/torn'), `someone/torn: model.safetensors.index.json names ${shard(3)}`);
  });

  it('with the folder to write is told before anything is downloaded', async () => {
    hub.commit(repo, model);
    hub.commit('someone/else', model);
    writeFileSync('file', 'x');
    expectFailure(await pull('--out', 'file'), 'file is a file');
    mkdirSync('trained');
    writeFileSync('trained/config.json', '{}');
    expectFailure(await pull('--out', 'trained'), 'trained holds config.json and was not pulled from the hub');
    expect(hub.asked).toEqual([]);
    await pull('--out', 'pulled');
    expectFailure(await cli('pull', 'someone/else', '--out', 'pulled'), `pulled holds ${repo}`);
  });

  it('with a disk that is too small is told before the download', async () => {
    hub.commit(repo, model);
    hub.listed.push({ type: 'file', path: 'NOTICE', size: 1e18, oid: 'a'.repeat(40) });
    expectFailure(await pull(), 'what is to be downloaded takes 1,000,000 TB, but the disk has');
    expect(rangesOf(shard(1))).toEqual([]);
  });

  it.skipIf(process.platform === 'win32')('with a disk that fills up is told, and the next pull goes on', async () => {
    hub.commit(repo, model);
    // a limit on file size makes a write fail as a full disk does; the build that the command line may need
    // must not be subject to it
    await spawnCli(['--version']).outcome;
    const child = spawn('bash', ['-c', 'ulimit -f 50; exec "$@"', 'sh', process.execPath, bin, 'pull', repo], {
      env: { ...process.env, DEBUG: '' },
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
    expectFailure({ code, stdout: '', stderr }, `${folder}: the disk is full; free some space, and the same command goes on`);
    hub.downloads.length = 0;
    await pull();
    expect(rangesOf(shard(1))).toEqual(['bytes=51200-']);
    expectFolder(folder, model);
  });
});
