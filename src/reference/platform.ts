import { ReferenceSyntaxError } from './error.ts';

/** What an image was built for, in the image specification's words (GOOS, GOARCH and the variant of the CPU). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

const KNOWN_OS = new Set(
  'aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos'.split(
    ' ',
  ),
);
const KNOWN_ARCHITECTURE = new Set(
  (
    '386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 ' +
    'mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm'
  ).split(' '),
);
const PART = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;

/**
 * Parses `os`, `architecture`, `os/architecture` or `os/architecture/variant`; what is left out is the host's.
 * Other names of an architecture (`x86_64`, `aarch64`, `armhf`) become the usual ones.
 *
 * @throws ReferenceSyntaxError `INVALID_INPUT`
 * @see https://github.com/containerd/platforms
 */
export function parsePlatform(specifier: string, host: Platform = hostPlatform()): Platform {
  const parts = specifier.split('/');
  const [first = '', second, third] = parts;
  if (parts.length > 3 || !parts.every((part) => PART.test(part))) {
    throw new ReferenceSyntaxError(
      'not a platform',
      specifier,
      'OS/ARCHITECTURE[/VARIANT], as linux/arm64',
      'INVALID_INPUT',
    );
  }
  if (second !== undefined) return platform(first, second, third);
  const os = normalizeOs(first);
  if (KNOWN_OS.has(os)) return { ...host, os };
  const guessed = platform(host.os, first);
  if (KNOWN_ARCHITECTURE.has(guessed.architecture)) return guessed;
  throw new ReferenceSyntaxError(
    'neither an operating system nor an architecture',
    specifier,
    undefined,
    'INVALID_INPUT',
  );
}

/** `linux/arm/v7`. */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === undefined || variant === ''
    ? `${os}/${architecture}`
    : `${os}/${architecture}/${variant}`;
}

/** The platform of this process. */
export function hostPlatform(os: string = process.platform, architecture: string = process.arch): Platform {
  const names: Readonly<Record<string, string>> = {
    x64: 'amd64',
    ia32: '386',
    mipsel: 'mipsle',
    loong64: 'loong64',
  };
  return platform(os === 'win32' ? 'windows' : os, names[architecture] ?? architecture);
}

/**
 * The same platform in its canonical spelling: `aarch64/v8` is `arm64`, `armhf` is `arm/v7`, `arm` is `arm/v7`,
 * `amd64/v1` is `amd64`.
 */
export function normalizePlatform(given: Platform): Platform {
  return platform(given.os, given.architecture, given.variant);
}

/**
 * Whether an image for `candidate` runs on `wanted`, and how well: 0 is the platform itself, larger numbers are
 * older variants; `undefined` means that it doesn't run.
 */
export function platformDistance(candidate: Platform, wanted: Platform): number | undefined {
  const name = formatPlatform(normalizePlatform(candidate));
  const index = runnable(normalizePlatform(wanted)).indexOf(name);
  return index === -1 ? undefined : index;
}

/**
 * The candidate that fits `wanted` best, by containerd's rules: the variant itself, then older ones, then the
 * 32-bit sibling; among equals the first. One that doesn't say its platform is taken only when no other fits.
 */
export function selectPlatform<T extends { readonly platform?: Platform | undefined }>(
  candidates: readonly T[],
  wanted: Platform = hostPlatform(),
): T | undefined {
  const order = runnable(normalizePlatform(wanted));
  let best: T | undefined;
  let bestDistance = order.length;
  for (const candidate of candidates) {
    if (candidate.platform === undefined) continue;
    const distance = order.indexOf(formatPlatform(normalizePlatform(candidate.platform)));
    if (distance !== -1 && distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best ?? candidates.find((candidate) => candidate.platform === undefined);
}

/** The canonical spellings of all platforms whose programs run on `wanted`, best first. */
function runnable(wanted: Platform): string[] {
  const { os, architecture, variant } = wanted;
  const siblings: Platform[] = [];
  const add = (name: string, version?: string) => siblings.push(platform(os, name, version));
  if (architecture === 'amd64') {
    for (let level = versionOf(variant) - 1; level >= 1; level--) add('amd64', `v${level}`);
    add('386');
  } else if (architecture === 'arm') {
    for (let version = versionOf(variant) - 1; version >= 5; version--) add('arm', `v${version}`);
  } else if (architecture === 'arm64') {
    for (const older of olderArm64(variant ?? 'v8')) add('arm64', older);
    for (let version = 8; version >= 5; version--) add('arm', `v${version}`);
  }
  return [...new Set([wanted, ...siblings].map(formatPlatform))];
}

/** Armv9.n contains Armv8.(n+5), and every minor version contains the ones before it. */
function olderArm64(variant: string): string[] {
  const match = /^v([89])(?:\.(\d))?$/.exec(variant);
  if (match === null) return [];
  const major = Number(match[1]);
  const minor = Number(match[2] ?? 0);
  const older: string[] = [];
  if (major === 9) for (let m = minor - 1; m >= 0; m--) older.push(m === 0 ? 'v9' : `v9.${m}`);
  const newestV8 = major === 9 ? Math.min(minor + 5, 9) : minor - 1;
  for (let m = newestV8; m >= 0; m--) older.push(m === 0 ? 'v8' : `v8.${m}`);
  return older;
}

function versionOf(variant: string | undefined): number {
  const match = /^v(\d{1,2})$/.exec(variant ?? '');
  return match === null ? 0 : Number(match[1]);
}

function platform(os: string, architecture: string, variant = ''): Platform {
  const [name, version] = normalizeArchitecture(architecture.toLowerCase(), variant.toLowerCase());
  return { os: normalizeOs(os), architecture: name, ...(version === '' ? {} : { variant: version }) };
}

function normalizeOs(os: string): string {
  const lower = os.toLowerCase();
  return lower === 'macos' ? 'darwin' : lower;
}

function normalizeArchitecture(architecture: string, variant: string): readonly [string, string] {
  switch (architecture) {
    case 'i386':
      return ['386', ''];
    case 'x86_64':
    case 'x86-64':
    case 'amd64':
      return ['amd64', variant === 'v1' ? '' : variant];
    case 'aarch64':
    case 'arm64':
      if (variant === '8' || variant === 'v8' || variant === 'v8.0') return ['arm64', ''];
      return ['arm64', variant === '9' || variant === 'v9.0' ? 'v9' : variant];
    case 'armhf':
      return ['arm', 'v7'];
    case 'armel':
      return ['arm', 'v6'];
    case 'arm':
      if (variant === '') return ['arm', 'v7'];
      return ['arm', /^[5-8]$/.test(variant) ? `v${variant}` : variant];
    default:
      return [architecture, variant];
  }
}
