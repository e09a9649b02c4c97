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
 * @returns false where the C library can't be reached; then nothing has changed
 * @see prctl(2), PR_SET_DUMPABLE; getrlimit(2), RLIMIT_CORE
 */
export function forbidCoreDumps(): boolean {
  for (const name of LIBRARIES) {
    try {
      const libc = dlopen(name, {
        prctl: { args: ['i32', 'u64', 'u64', 'u64', 'u64'], returns: 'i32' },
        getrlimit: { args: ['i32', 'ptr'], returns: 'i32' },
        setrlimit: { args: ['i32', 'ptr'], returns: 'i32' },
      });
      const limits = new BigUint64Array(2);
      const known = libc.symbols.getrlimit(RLIMIT_CORE, ptr(limits)) === 0;
      limits[0] = 0n;
      const limited = known && libc.symbols.setrlimit(RLIMIT_CORE, ptr(limits)) === 0;
      return libc.symbols.prctl(PR_SET_DUMPABLE, 0n, 0n, 0n, 0n) === 0 && limited;
    } catch {
      // Not this libc: the next name.
    }
  }
  return false;
}
