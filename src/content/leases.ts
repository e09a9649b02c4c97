import fs from 'node:fs';
import path from 'node:path';
import { systemErrorCode } from '../errors/index.ts';
import { isProcessAlive, pinOwner } from './process-identity.ts';

/**
 * Says to all processes on a cache directory which of its files are in use: an empty file `NAME~OWNER` a lease.
 * A lease keeps eviction away so that a live mount does not fetch its content twice; no byte would be wrong
 * without it, since a deleted file lives on for whoever has it open.
 */
export class Leases {
  readonly #counts = new Map<string, number>();

  constructor(
    private readonly directory: string,
    private readonly owner: string,
    private readonly writable: boolean,
  ) {}

  take(name: string): void {
    const count = this.#counts.get(name) ?? 0;
    this.#counts.set(name, count + 1);
    if (count === 0 && this.writable) {
      try {
        fs.writeFileSync(this.#path(name), '');
      } catch (error) {
        // Without the file only other processes do not know of this lease; a full disk must not stop a mount.
        if (systemErrorCode(error) === undefined) throw error;
      }
    }
  }

  release(name: string): void {
    const count = this.#counts.get(name) ?? 0;
    if (count > 1) {
      this.#counts.set(name, count - 1);
      return;
    }
    this.#counts.delete(name);
    if (this.writable) remove(this.#path(name));
  }

  releaseAll(): void {
    for (const name of [...this.#counts.keys()]) {
      this.#counts.set(name, 1);
      this.release(name);
    }
  }

  /** Takes a lease that outlives all processes. @throws the system call's error where it can't be written down */
  pin(name: string, pin: string): void {
    fs.writeFileSync(path.join(this.directory, `${name}~${pinOwner(pin)}`), '', { mode: 0o600 });
  }

  /** Takes back what `pin` took under this name. Answers whether there was anything. */
  unpin(pin: string): boolean {
    const entries = listDirectory(this.directory).filter((entry) => splitOwner(entry)[1] === pinOwner(pin));
    for (const entry of entries) fs.rmSync(path.join(this.directory, entry), { force: true });
    return entries.length > 0;
  }

  /** The names that some living process, or a pin, holds. Leases of dead processes are removed on the way. */
  held(): Set<string> {
    const names = new Set(this.#counts.keys());
    for (const entry of listDirectory(this.directory)) {
      const [name, owner] = splitOwner(entry);
      if (name === undefined || owner === undefined) continue;
      if (isProcessAlive(owner)) names.add(name);
      else if (this.writable) remove(path.join(this.directory, entry));
    }
    return names;
  }

  #path(name: string): string {
    return path.join(this.directory, `${name}~${this.owner}`);
  }
}

/** What can't be deleted, on a disk that has become read-only say, spares content that nobody uses, no more. */
function remove(file: string): void {
  try {
    fs.rmSync(file, { force: true });
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
  }
}

/** `NAME~OWNER` → both parts. */
export function splitOwner(entry: string): [name: string | undefined, owner: string | undefined] {
  const at = entry.lastIndexOf('~');
  return at < 0 ? [undefined, undefined] : [entry.slice(0, at), entry.slice(at + 1)];
}

/** The names in a directory; none where it is absent or unreadable. */
export function listDirectory(directory: string): string[] {
  try {
    return fs.readdirSync(directory);
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return [];
  }
}
