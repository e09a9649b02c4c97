import { dlopen, ptr } from 'bun:ffi';

const RLIMIT_CORE = 4;
const PR_SET_DUMPABLE = 4;
const LIBRARIES = [
  'libc.so.6',
  `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`,
  'libc.so',
];

/**
 * Keeps what this process has in memory out of core files: its soft limit for them becomes 0 (the hard one stays,
 * because containers inherit it), and the kernel is told that it is not to be dumped, nor to be looked into by other
 * processes of the same user. Root still may: there is no defence against root.
 *
 * @param options.traceable leaves other processes of the same user their right to look into this one. Then the limit
 *   becomes 1: too little for a file, and the one value that also keeps the kernel from piping a core to a program.
 * @returns false where the C library can't be reached; then nothing has changed
 * @see prctl(2), PR_SET_DUMPABLE; getrlimit(2), RLIMIT_CORE
 */
export function forbidCoreDumps(options: { readonly traceable?: boolean } = {}): boolean {
  const traceable = options.traceable === true;
  for (const name of LIBRARIES) {
    try {
      const libc = dlopen(name, {
        prctl: { args: ['i32', 'u64', 'u64', 'u64', 'u64'], returns: 'i32' },
        getrlimit: { args: ['i32', 'ptr'], returns: 'i32' },
        setrlimit: { args: ['i32', 'ptr'], returns: 'i32' },
      });
      const limits = new BigUint64Array(2);
      const known = libc.symbols.getrlimit(RLIMIT_CORE, ptr(limits)) === 0;
      limits[0] = traceable ? 1n : 0n;
      const limited = known && libc.symbols.setrlimit(RLIMIT_CORE, ptr(limits)) === 0;
      return limited && (traceable || libc.symbols.prctl(PR_SET_DUMPABLE, 0n, 0n, 0n, 0n) === 0);
    } catch {
      // Not this libc: the next name.
    }
  }
  return false;
}
