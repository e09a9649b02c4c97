import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { cleanContainer } from '../../../src/worker/containers/index.ts';

const COMMANDS =
  'sh cat ls id env sleep head tail dd stat unshare sha256sum mkdir touch chmod true seq tr readlink stty tee yes'.split(
    ' ',
  );

/** A small root file system made of this host's own commands, and a directory for containers. */
export class ContainerLab implements AsyncDisposable {
  readonly directory: string;
  readonly rootfs: string;
  readonly #containers: string[] = [];

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), 'imgcred-containers-'));
    this.rootfs = join(this.directory, 'rootfs');
    for (const name of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'home/app', 'lib64', 'usr']) {
      mkdirSync(join(this.rootfs, name), { recursive: true });
    }
    symlinkSync('../bin', join(this.rootfs, 'usr/bin'));
    for (const command of COMMANDS) this.addProgram(Bun.which(command) ?? `/bin/${command}`, command);
    writeFileSync(
      join(this.rootfs, 'etc/passwd'),
      'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n',
    );
    writeFileSync(join(this.rootfs, 'etc/group'), 'root:x:0:\napp:x:1000:\naudio:x:29:app\nextra:x:77:\n');
    writeFileSync(join(this.rootfs, 'etc/not-executable'), 'nothing\n', { mode: 0o644 });
    writeFileSync(join(this.rootfs, 'bin/not-a-program'), 'junk\n', { mode: 0o755 });
  }

  /** Copies a program with the libraries that it is linked with. */
  addProgram(path: string, name: string): void {
    const real = realpathSync(path);
    copyFileSync(real, join(this.rootfs, 'bin', name));
    const listed = spawnSync('ldd', [real], { encoding: 'utf8' }).stdout;
    for (const [, library] of listed.matchAll(/(\/\S+\.so\S*)/g)) {
      if (library === undefined) continue;
      const target = join(this.rootfs, dirname(library));
      mkdirSync(target, { recursive: true });
      copyFileSync(realpathSync(library), join(target, basename(library)));
    }
  }

  /** Compiles a C program into the root file system. */
  compile(name: string, source: string): void {
    const file = join(this.directory, `${name}.c`);
    const program = join(this.directory, name);
    writeFileSync(file, source);
    const result = spawnSync('cc', ['-O1', '-o', program, file], { encoding: 'utf8' });
    if (result.status !== 0) throw new Error(`cc: ${result.stderr}`);
    this.addProgram(program, name);
  }

  /** An id and a directory that no other container of this run has. */
  next(): { readonly id: string; readonly directory: string } {
    const number = this.#containers.length + 1;
    const directory = join(this.directory, `container-${number}`);
    this.#containers.push(directory);
    return { id: `${basename(this.directory).toLowerCase()}-${number}`, directory };
  }

  /** Also what a failed test has left. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const directory of this.#containers) await cleanContainer(directory);
    rmSync(this.directory, { recursive: true, force: true });
  }
}
