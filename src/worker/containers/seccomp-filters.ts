import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { bootId } from './process-identity.ts';
import type { ContainerRuntime } from './runtime.ts';
import type { SeccompProfile } from './seccomp.ts';

// What crun takes the program of a filter from, in base64, instead of making it from the profile: a third of the time
// that it needs for a container. An older crun does not know it, and makes the program.
const PROGRAM_ANNOTATION = 'run.oci.seccomp_bpf_data';
// In the directory of crun's state for the container: the program as it made it.
const MADE_PROGRAM = 'seccomp.bpf';
// A library that was upgraded meanwhile may make another program of the same profile.
const KEPT_MS = 24 * 60 * 60_000;
// A profile for each choice of capabilities; some 10 kB each.
const MOST_KEPT = 64;
// struct sock_filter
const INSTRUCTION_BYTES = 8;
const DIGEST_BYTES = 32;

/**
 * The programs that crun has made of seccomp profiles, kept for the next container with the same profile. A file a
 * profile: the sha256 of the program, and the program.
 */
export class SeccompFilters {
  readonly #directory: string;
  readonly #runtime: ContainerRuntime;

  /** @param directory nobody but this user may write to it; made when there is something to keep */
  constructor(directory: string, runtime: ContainerRuntime) {
    this.#directory = directory;
    this.#runtime = runtime;
  }

  /** What the spec of a container with `profile` has to say; nothing where the runtime is to make the program. */
  annotations(profile: SeccompProfile): Readonly<Record<string, string>> {
    const program = this.#runtime.name === 'crun' ? this.#find(profile) : undefined;
    return program === undefined ? {} : { [PROGRAM_ANNOTATION]: Buffer.from(program).toString('base64') };
  }

  /** Keeps what the runtime has made for a container that it started, where that is not kept already. */
  keep(profile: SeccompProfile, containerState: string): void {
    if (this.#runtime.name !== 'crun' || this.#find(profile) !== undefined) return;
    try {
      const path = this.#path(profile);
      const program = readFileSync(join(containerState, MADE_PROGRAM));
      if (!isProgram(program)) return;
      mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
      this.#makeRoom();
      // What a full disk leaves of this counts among those that are kept, until others take its place.
      const temporary = `${path}.${process.pid}.new`;
      writeFileSync(temporary, Buffer.concat([digest(program), program]), { mode: 0o600 });
      renameSync(temporary, path);
    } catch {
      // Then the next container has its own made.
    }
  }

  #find(profile: SeccompProfile): Uint8Array | undefined {
    const path = this.#path(profile);
    try {
      if (isOld(statSync(path).mtimeMs)) return undefined;
      const bytes = readFileSync(path);
      const program = bytes.subarray(DIGEST_BYTES);
      // A file that a power cut has torn is none.
      return isProgram(program) && digest(program).equals(bytes.subarray(0, DIGEST_BYTES))
        ? program
        : undefined;
    } catch {
      return undefined;
    }
  }

  #makeRoom(): void {
    const kept = readdirSync(this.#directory)
      .map((name) => join(this.#directory, name))
      .map((path) => ({ path, time: statSync(path).mtimeMs }))
      .sort((a, b) => b.time - a.time);
    kept.forEach(({ path, time }, newer) => {
      if (newer >= MOST_KEPT - 1 || isOld(time)) rmSync(path, { force: true });
    });
  }

  // All that the program depends on: the profile, and who makes it for which kernel.
  #path(profile: SeccompProfile): string {
    const { path, version } = this.#runtime;
    const { size, mtimeMs, ino } = statSync(path, { throwIfNoEntry: false }) ?? {};
    const text = JSON.stringify([profile, path, version, size, mtimeMs, ino, release(), bootId()]);
    return join(this.#directory, createHash('sha256').update(text).digest('hex'));
  }
}

function isOld(time: number): boolean {
  // A clock that was set back must not keep one for ever.
  return Math.abs(Date.now() - time) > KEPT_MS;
}

function isProgram(bytes: Uint8Array): boolean {
  return bytes.length > 0 && bytes.length % INSTRUCTION_BYTES === 0;
}

function digest(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
