import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { lockFolder } from './folder-lock.ts';

const root = mkdtempSync(join(tmpdir(), 'lock-'));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
const fresh = () => join(root, String(folders++), 'run');
const quick = { note: () => {}, patience: 1 };

/** Leaves the lock of a process that was killed, with `changes` to what it says. */
async function abandon(folder: string, changes: object = {}, number = 1): Promise<string> {
  const lock = await lockFolder(folder, quick);
  const path = join(folder, `run.lock.${number}`);
  const text = readFileSync(path, 'utf8');
  await lock.release();
  const child = spawn(process.execPath, ['-e', ''], { stdio: 'ignore' });
  await once(child, 'exit');
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, JSON.stringify({ ...JSON.parse(text), pid: child.pid, token: 'gone', ...changes }));
  return path;
}

describe('the lock of a run folder', () => {
  it('is there while it is held, and leaves nothing', async () => {
    const folder = fresh();
    const lock = await lockFolder(folder, quick);
    expect(readdirSync(folder)).toEqual(['run.lock.1']);
    lock.check();
    await lock.release();
    expect(existsSync(folder)).toBe(false);
    mkdirSync(folder);
    await (await lockFolder(folder, quick)).release();
    expect(readdirSync(folder)).toEqual([]);
  });

  it('is refused while another run of this machine holds it', async () => {
    const folder = fresh();
    const lock = await lockFolder(folder, quick);
    await expect(lockFolder(folder, quick)).rejects.toThrow(
      new RegExp(`a run is going on there \\(process ${process.pid} on .*\\); wait for it or stop it`),
    );
    await lock.release();
    await (await lockFolder(folder, quick)).release();
  });

  it('goes to one of many that want it at once, be it free or left behind', async () => {
    for (const left of [false, true]) {
      const folder = fresh();
      if (left) await abandon(folder);
      const all = await Promise.allSettled(Array.from({ length: 8 }, () => lockFolder(folder, quick)));
      const won = all.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
      expect(won).toHaveLength(1);
      expect(readdirSync(folder)).toEqual([left ? 'run.lock.2' : 'run.lock.1']);
      won[0].check();
      await won[0].release();
    }
  });

  it('is taken over at once from a process of this machine that was killed', async () => {
    const folder = fresh();
    await abandon(folder);
    const began = performance.now();
    const lock = await lockFolder(folder, { ...quick, patience: 60 });
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(readdirSync(folder)).toEqual(['run.lock.2']);
    await lock.release();
  });

  it.runIf(process.platform === 'linux')('is taken over from a process that was killed and still frees its memory', async () => {
    const folder = fresh();
    // memory that is touched takes longer to free than a lock takes to be looked at
    const child = spawn(process.execPath, ['-e', 'const b = Buffer.alloc(2 ** 30, 1); console.log(b[7]); setInterval(() => {}, 1e6)']);
    await once(child.stdout, 'data');
    const stat = () =>
      readFileSync(`/proc/${child.pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
    await abandon(folder, { pid: child.pid, started: stat()[19] });
    await expect(lockFolder(folder, quick)).rejects.toThrow('a run is going on there');
    child.kill('SIGKILL');
    while ((Number(stat()[6]) & 4) === 0);
    await (await lockFolder(folder, { ...quick, patience: 30 })).release();
  });

  it.runIf(process.platform === 'linux')('is taken over from a process whose pid another one has now', async () => {
    const folder = fresh();
    await abandon(folder, { pid: process.pid, started: '1' });
    await (await lockFolder(folder, { ...quick, patience: 60 })).release();
  });

  it('of another machine is taken over only when its heart has stopped', async () => {
    const folder = fresh();
    const path = await abandon(folder, { machine: 'elsewhere', host: 'node-7', pid: process.pid });
    let beat = 0;
    const heart = setInterval(() => writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), beat: beat++ })), 100);
    const notes: string[] = [];
    await expect(lockFolder(folder, { note: (text) => notes.push(text), patience: 20 })).rejects.toThrow(/on node-7, since/);
    clearInterval(heart);
    expect(notes.join()).toContain('looking for up to 20 s whether it goes on');
    await (await lockFolder(folder, quick)).release();
  });

  it('shows that its run goes on, until it is released: then nothing is written where it was', async () => {
    const folders = [fresh(), fresh()];
    const [first, second] = await Promise.all(folders.map((folder) => lockFolder(folder, quick)));
    const [left, path] = folders.map((folder) => join(folder, 'run.lock.1'));
    const texts = () => [left, path].map((file) => readFileSync(file, 'utf8'));
    const before = texts();
    await expect.poll(() => texts().every((text, i) => text !== before[i]), { timeout: 30_000, interval: 200 }).toBe(true);
    await first.release();
    // of somebody else by now
    mkdirSync(folders[0], { recursive: true });
    writeFileSync(left, 'theirs');
    const beaten = texts()[1];
    await expect.poll(() => texts()[1], { timeout: 30_000, interval: 200 }).not.toBe(beaten);
    expect(texts()[0]).toBe('theirs');
    await second.release();
  });

  it('is found to be lost by a run that was asleep meanwhile', async () => {
    const folder = fresh();
    const lock = await lockFolder(folder, quick);
    writeFileSync(join(folder, 'run.lock.2'), JSON.stringify({ host: 'node-7', pid: 12, token: 'other' }));
    expect(() => lock.check()).toThrow(/another run \(process 12 on node-7\) has taken the folder/);
    await lock.release();
    expect(readdirSync(folder)).toEqual(['run.lock.2']);
  });

  it('says what is wrong with a folder that cannot be', async () => {
    const file = join(root, 'file');
    writeFileSync(file, '');
    await expect(lockFolder(join(file, 'run'), quick)).rejects.toThrow(/run: what it is said to lie in is no folder/);
  });
});
