// Reads every import under src/ and refuses those that go against the arrows of docs/architecture.md.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';

/** Folder → the folders it may import. What is missing here may be imported by nobody but itself. */
const ALLOWED: Record<string, readonly string[]> = {
  errors: [],
  reference: ['errors'],
  observability: ['errors'],
  entries: [],
  files: [],
  threads: ['errors', 'entries'],
  credentials: ['errors', 'reference', 'observability', 'entries'],
  registry: ['errors', 'reference', 'credentials', 'observability'],
  index: ['errors', 'reference', 'threads'],
  content: ['errors', 'reference', 'index', 'observability'],
  filesystem: ['errors', 'reference', 'index', 'content', 'observability', 'entries'],
  protocol: ['errors', 'reference', 'credentials', 'observability'],
  logs: ['errors', 'protocol'],
  database: ['errors', 'files', 'reference', 'observability', 'threads'],
  secrets: ['errors', 'files', 'reference', 'credentials', 'database', 'observability'],
  mounts: ['errors', 'files', 'reference', 'credentials', 'registry', 'index', 'content', 'filesystem', 'protocol', 'config', 'observability'],
  config: ['errors', 'reference', 'observability'],
  gateway: ['errors', 'files', 'reference', 'credentials', 'registry', 'index', 'content', 'database', 'secrets', 'protocol', 'logs', 'config', 'observability', 'entries', 'threads'],
  scheduler: ['errors', 'reference', 'credentials', 'content', 'database', 'secrets', 'protocol', 'logs', 'config', 'observability'],
  worker: ['errors', 'files', 'reference', 'credentials', 'registry', 'index', 'content', 'filesystem', 'mounts', 'protocol', 'config', 'observability'],
  cli: ['*'],
  main: ['*'],
};

/** Module → the folders that may import it, by prefix of the path under src/. */
const RESTRICTED: Record<string, readonly string[]> = {
  'bun:sqlite': ['database/'],
  'bun:ffi': ['filesystem/'],
  '@aws-sdk/': ['credentials/providers/'],
  '@smithy/': ['credentials/providers/'],
  'google-auth-library': ['credentials/providers/'],
  hono: ['gateway/', 'scheduler/'],
};

const root = join(import.meta.dir, '..', 'src');
const problems: string[] = [];
const build = readFileSync(join(import.meta.dir, 'build'), 'utf8');
for (const file of readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))) {
  const folder = file.includes('/') ? file.slice(0, file.indexOf('/')) : file.replace(/\.ts$/, '');
  const allowed = ALLOWED[folder];
  if (allowed === undefined) {
    problems.push(`src/${file}: folder '${folder}' is not in the architecture (scripts/check-architecture.ts)`);
    continue;
  }
  const source = readFileSync(join(root, file), 'utf8');
  // What starts a thread or loads a part, or says which one a task is for.
  for (const [, entry] of source.matchAll(/\b(?:(?:startThread|openThread|importEntry)(?:<typeof import\('[^']+'\)>)?\(\s*|entry(?::| =) )'([^']+)'/g)) {
    if (!build.includes(` src/${entry}.ts `)) problems.push(`src/${file}: scripts/build makes no bundle of its entry point src/${entry}.ts`);
  }
  for (const specifier of importsOf(source)) {
    const restricted = Object.entries(RESTRICTED).find(([module]) => specifier === module || specifier.startsWith(module.endsWith('/') ? module : `${module}/`));
    if (restricted !== undefined && !restricted[1].some((prefix) => file.startsWith(prefix))) {
      problems.push(`src/${file}: imports ${specifier}, which only ${restricted[1].join(', ')} may`);
    }
    if (!specifier.startsWith('.')) continue;
    const target = relative(root, normalize(join(root, dirname(file), specifier)));
    if (target.startsWith('..')) continue;
    const targetFolder = target.includes('/') ? target.slice(0, target.indexOf('/')) : target.replace(/\.ts$/, '');
    if (targetFolder === folder) continue;
    if (!allowed.includes('*') && !allowed.includes(targetFolder)) {
      problems.push(`src/${file}: '${folder}' may not import '${targetFolder}'`);
    } else if (folder !== 'main' && (target.split('/').length > 2 || !target.endsWith('/index.ts'))) {
      problems.push(`src/${file}: imports src/${target}; other folders are entered by their index.ts`);
    }
  }
}
for (const problem of problems) console.error(problem);
console.error(problems.length === 0 ? 'architecture: every import follows the arrows' : `architecture: ${problems.length} imports go against the arrows`);
process.exit(problems.length === 0 ? 0 : 1);

function importsOf(source: string): string[] {
  const found: string[] = [];
  const pattern = /(?:\bfrom\s*|\bimport\s*\(\s*|\bimport\s+)(['"])([^'"\n]+)\1/g;
  for (const match of source.matchAll(pattern)) if (match[2] !== undefined) found.push(match[2]);
  return found;
}
