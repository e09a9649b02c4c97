import { constants } from 'node:os';
import { ContainerInputError } from './errors.ts';

// SIGRTMIN of glibc and musl: the kernel's 32 and 33 are taken by their threads.
const SIGRTMIN = 34;
const SIGRTMAX = 64;

const NUMBERS = new Map<string, number>(Object.entries(constants.signals));

/**
 * The number of a signal given as `SIGTERM`, `term`, `15` or `RTMIN+3`.
 * @throws ContainerInputError
 */
export function signalNumber(signal: string | number): number {
  const text = String(signal).trim().toUpperCase();
  if (/^[0-9]{1,2}$/.test(text)) {
    const number = Number(text);
    if (number >= 1 && number <= SIGRTMAX) return number;
  }
  const name = text.startsWith('SIG') ? text : `SIG${text}`;
  const known = NUMBERS.get(name);
  if (known !== undefined) return known;
  const realtime = /^SIGRT(MIN|MAX)(?:([+-])([0-9]{1,2}))?$/.exec(name);
  if (realtime !== null) {
    const base = realtime[1] === 'MIN' ? SIGRTMIN : SIGRTMAX;
    const number = base + (realtime[2] === '-' ? -1 : 1) * Number(realtime[3] ?? 0);
    if (number >= SIGRTMIN && number <= SIGRTMAX) return number;
  }
  throw new ContainerInputError(`unknown signal '${signal}'`, { hint: 'see signal(7), for example SIGTERM' });
}

/** Whether {@link signalNumber} knows it. */
export function isSignal(signal: string): boolean {
  try {
    return signalNumber(signal) > 0;
  } catch {
    return false;
  }
}

/** `SIGKILL` for 9; the number itself for one without a name. */
export function signalName(number: number): string {
  for (const [name, candidate] of NUMBERS) if (candidate === number) return name;
  return number >= SIGRTMIN ? `SIGRTMIN+${number - SIGRTMIN}` : `signal ${number}`;
}
