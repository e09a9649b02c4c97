import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { inOwnNamespace, type Measured, measured, output, timed } from './mark.ts';

// podman's defaults are more than a session's hard limits may be.
const LIMITS = ['--ulimit=nofile=1024:1024', '--ulimit=nproc=1024:1024'];

/** podman on storage of its own, on the same disk as everything else here, with overlayfs as it has by default. */
export class Podman {
  readonly #engine: readonly string[];
  readonly #login: readonly string[];

  constructor(directory: string, user: string, password: string) {
    mkdirSync(directory, { recursive: true });
    this.#engine = inOwnNamespace([
      'podman',
      ...['--root', path.join(directory, 'root'), '--runroot', path.join(directory, 'run')],
      ...['--storage-driver=overlay', '--runtime=crun', '--cgroup-manager=cgroupfs', '--events-backend=none'],
    ]);
    this.#login = ['--quiet', '--tls-verify=false', '--creds', `${user}:${password}`];
  }

  /** Milliseconds of pulling an image. */
  pull(image: string): Promise<number> {
    return timed([...this.#engine, 'pull', ...this.#login, image]);
  }

  /** Runs a command in a pulled image, to its end. */
  run(image: string, command: readonly string[]): Promise<Measured> {
    return measured([...this.#engine, 'run', '--rm', '--pull=never', '--network=none', '--cgroups=disabled', ...LIMITS, image, ...command]);
  }

  /** Removes all images: the next pull begins from nothing. */
  async forget(): Promise<void> {
    await output([...this.#engine, 'rmi', '--all', '--force']);
  }
}
