// For a clone: installs what package-lock.json names if it is not installed yet, and builds dist/ if a source
// is newer. Everything that must work from a fresh clone (npm test, npm run demo, npx llava-gemma) goes
// through here; needs only Node. `--package` builds what npm packs: dist/ from scratch, without source maps,
// because the sources are not packed.
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, realpathSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Variables of launchers of MPI (src/mpi/launcher.ts), and which of the processes this is. */
const { env } = process;
const launched =
  [env.OMPI_COMM_WORLD_SIZE, env.PMI_SIZE, env.SLURM_STEP_NUM_TASKS].some((size) => Number(size) > 1) || env.PMI_PORT !== undefined;
const rank = [env.OMPI_COMM_WORLD_RANK, env.PMI_RANK, env.PMI_ID, env.SLURM_PROCID].find(Boolean);

function run(command, args, options) {
  if (launched) {
    if (rank === '0')
      console.error(
        'error: the clone must be installed and built before several processes start in it: npx llava-gemma --version does both',
      );
    process.exit(1);
  }
  // stdout is reserved for what the user asked for; progress goes to stderr.
  const { status } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], ...options });
  if (status === 0) return;
  console.error(`llava-gemma: \`${[command, ...args].join(' ')}\` failed`);
  process.exit(status ?? 1);
}

function newest(folder) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    time = Math.max(time, entry.isDirectory() ? newest(path) : statSync(path).mtimeMs);
  }
  return time;
}

export function install() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  const lock = join(root, 'package-lock.json');
  const modules = join(root, 'node_modules');
  // a link leads to another installation, which `npm ci` would empty
  if (existsSync(modules) && lstatSync(modules).isSymbolicLink()) return;
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return;
  // on Windows, npm is a script that only a shell finds
  run('npm ci --no-fund --no-audit --loglevel=error', [], { shell: true });
}

function compile(...options) {
  run(process.execPath, [join('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json', ...options]);
  run(process.execPath, [join('scripts', 'bundle.mjs')]);
}

export function build() {
  const built = ['cli/main.js', 'browser/llava-gemma.js'].map((file) => join(root, 'dist', file));
  const changed = newest(join(root, 'src'));
  if (built.every((file) => existsSync(file) && statSync(file).mtimeMs >= changed)) return;
  compile();
}

// argv[1] may be a link, import.meta.url never is
if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === '--package') {
    rmSync(join(root, 'dist'), { recursive: true, force: true });
    compile('--sourceMap', 'false');
  } else {
    install();
    // once, before tests that start the command line at the same time
    build();
  }
}
