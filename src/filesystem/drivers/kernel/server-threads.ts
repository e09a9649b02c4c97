import { ptr } from 'bun:ffi';
import { startThread } from '../../../entries/index.ts';
import { ImgcredError } from '../../../errors/index.ts';
import { checked, libc } from './libc.ts';
import type { Connection, ThreadCommand, ThreadReport, ThreadStart } from './thread-messages.ts';
import { COUNTERS } from './thread-messages.ts';

/** What a mount wants to hear from the threads. */
export interface MountListener {
  /** A request that the threads do not answer. */
  request(bytes: Uint8Array, record: number): void;
  /** Thread `number` died over a defect. The others go on; what it was just answering is unanswered. */
  lost(number: number, error: string): void;
  /** Another thread serves in its place. */
  replaced(): void;
  /** Nobody takes its place, nor answers what it owed. */
  broken(error: string): void;
  /** The kernel ended the connection. Called once. */
  gone(errno: number): void;
}

interface ServerThread {
  readonly worker: Worker;
  readonly commands: MessagePort;
  readonly wakeDescriptor: number;
  readonly waiting: Map<string, (failure: string | undefined) => void>;
  readonly stopped: Promise<void>;
  /** Set once it is ready. */
  epoll: number;
  dead: boolean;
}

interface ServedMount {
  readonly listener: MountListener;
  readonly connection: Connection;
}

// One defect a day is survived for a long time; what dies again and again is better served by a new process.
const MOST_REPLACEMENTS = 10;
const EFD_CLOEXEC = 0o2000000;

/**
 * The threads that serve all mounts of a process, so that a further mount costs a few kilobytes and not a
 * JavaScript engine. They start with the first mount and end with the last, unless somebody keeps them.
 */
export class ServerThreads {
  static #shared: ServerThreads | undefined;

  readonly #count: number;
  readonly #mounts = new Map<number, ServedMount>();
  #threads: Promise<ServerThread[]> | undefined;
  #entry = '';
  #next = 1;
  #kept = 0;
  #replacements = 0;

  constructor(count: number) {
    this.#count = count;
  }

  /** The process's own set. `count` counts for the first caller. */
  static shared(count: number): ServerThreads {
    ServerThreads.#shared ??= new ServerThreads(count);
    return ServerThreads.#shared;
  }

  /**
   * Starts the threads now, and keeps them also while nothing is mounted: the first mount needs not wait for them. What
   * keeps one from starting is told to the first mount.
   *
   * @returns what ends the keeping
   */
  keep(): () => Promise<void> {
    this.#kept += 1;
    this.#threads ??= this.#start();
    this.#threads.catch(() => {});
    let kept = true;
    return async () => {
      if (!kept) return;
      kept = false;
      this.#kept -= 1;
      await this.#endIfUnused();
    };
  }

  /** Memory for the threads to count in what they serve of one mount. */
  counters(): SharedArrayBuffer {
    return new SharedArrayBuffer(this.#count * COUNTERS * Float64Array.BYTES_PER_ELEMENT);
  }

  /**
   * Has all threads serve a connection.
   *
   * @returns the number to detach it by
   * @throws ImgcredError FUSE_UNAVAILABLE when a thread cannot start, MOUNT_FAILED when it cannot open its data
   */
  async attach(connection: Connection, listener: MountListener): Promise<number> {
    const mount = this.#next++;
    this.#mounts.set(mount, { listener, connection });
    try {
      this.#threads ??= this.#start();
      const threads = await this.#threads;
      const failures = await Promise.all(
        threads.map((thread, number) => tell(thread, { kind: 'attach', mount, thread: number, connection })),
      );
      const failure = failures.find((text) => text !== undefined);
      if (failure !== undefined) throw new ImgcredError('MOUNT_FAILED', failure);
    } catch (error) {
      await this.detach(mount);
      throw error;
    }
    return mount;
  }

  /** Has the threads leave every request of the mount to the main thread, and forget its index and content. */
  async withdraw(mount: number): Promise<void> {
    const threads = await (this.#threads ?? []);
    await Promise.all(threads.map((thread) => tell(thread, { kind: 'withdraw', mount })));
  }

  /** Has the threads forget the mount; when it resolves, none of them touches its descriptor any more. */
  async detach(mount: number): Promise<void> {
    const threads = await (this.#threads ?? []);
    await Promise.all(threads.map((thread) => tell(thread, { kind: 'detach', mount })));
    this.#mounts.delete(mount);
    await this.#endIfUnused();
  }

  async #endIfUnused(): Promise<void> {
    if (this.#kept > 0 || this.#mounts.size > 0 || this.#threads === undefined) return;
    const ending = this.#threads;
    this.#threads = undefined;
    const threads = await ending.catch(() => []);
    await Promise.all(threads.map(stop));
  }

  async #start(): Promise<ServerThread[]> {
    try {
      return await startThread('filesystem/drivers/kernel/server-thread', (entry) => {
        this.#entry = entry;
        return Promise.all(Array.from({ length: this.#count }, () => this.#startThread()));
      });
    } catch (cause) {
      this.#threads = undefined;
      throw new ImgcredError('FUSE_UNAVAILABLE', 'the FUSE server threads could not be started', {
        cause,
        hint: 'choose the other driver with --fuse-driver=fuse-native',
      });
    }
  }

  #startThread(): Promise<ServerThread> {
    return new Promise((resolve, reject) => {
      const worker = new Worker(this.#entry, { name: 'imgcred-fuse' });
      const { port1, port2 } = new MessageChannel();
      const wakeDescriptor = checked(libc.eventfd(0, EFD_CLOEXEC), 'eventfd');
      const { promise: stopped, resolve: ended } = Promise.withResolvers<void>();
      const thread: ServerThread = {
        ...{ worker, commands: port1, wakeDescriptor, waiting: new Map(), stopped, epoll: -1, dead: false },
      };
      worker.onerror = (event) => {
        // Before it is ready, whoever starts it hears of it.
        if (thread.epoll === -1) reject(new Error(event.message));
        else this.#bury(thread, event.message, ended);
      };
      worker.onmessage = ({ data: report }: MessageEvent<ThreadReport>) => {
        if (report.kind === 'ready') {
          thread.epoll = report.epoll;
          resolve(thread);
        } else if (report.kind === 'stopped') ended();
        else this.#hear(thread, report);
      };
      const start: ThreadStart = { commands: port2, wakeDescriptor };
      worker.postMessage(start, [port2]);
    });
  }

  /** Gives back what a dead thread had, and has another one serve in its place. */
  #bury(thread: ServerThread, error: string, ended: () => void): void {
    const threads = this.#threads;
    if (thread.dead || threads === undefined) return;
    thread.dead = true;
    thread.worker.terminate();
    release(thread);
    libc.close(thread.epoll);
    ended();
    // Whoever waits for it need not: the replacement is told of all mounts that are served then.
    for (const answer of thread.waiting.values()) answer(undefined);
    thread.waiting.clear();
    this.#threads = this.#replace(threads, thread, error);
    this.#threads.catch((cause: unknown) => {
      // The next mount may have more luck.
      if (this.#mounts.size === 0) this.#threads = undefined;
      for (const { listener } of this.#mounts.values()) listener.broken(String(cause));
    });
  }

  async #replace(
    before: Promise<ServerThread[]>,
    dead: ServerThread,
    error: string,
  ): Promise<ServerThread[]> {
    const threads = await before;
    const number = threads.indexOf(dead);
    if (number === -1) return threads;
    for (const { listener } of this.#mounts.values()) listener.lost(number, error);
    this.#replacements += 1;
    if (this.#replacements > MOST_REPLACEMENTS) throw new ImgcredError('INTERNAL', error);
    const fresh = await this.#startThread();
    threads[number] = fresh;
    for (const [mount, { listener, connection }] of [...this.#mounts]) {
      const failure = await tell(fresh, { kind: 'attach', mount, thread: number, connection });
      if (failure !== undefined) throw new ImgcredError('MOUNT_FAILED', failure);
      if (this.#mounts.has(mount)) listener.replaced();
      else await tell(fresh, { kind: 'detach', mount });
    }
    return threads;
  }

  #hear(thread: ServerThread, report: ThreadReport & { mount: number }): void {
    if (report.kind === 'request') {
      this.#mounts.get(report.mount)?.listener.request(report.bytes, report.record);
    } else if (report.kind === 'gone') {
      this.#mounts.get(report.mount)?.listener.gone(report.errno);
    } else {
      const key = `${report.kind} ${report.mount}`;
      thread.waiting.get(key)?.(report.kind === 'attached' ? report.failure : undefined);
      thread.waiting.delete(key);
    }
  }
}

function tell(
  thread: ServerThread,
  command: Exclude<ThreadCommand, { kind: 'stop' }>,
): Promise<string | undefined> {
  return new Promise((resolve) => {
    if (thread.dead) {
      resolve(undefined);
      return;
    }
    const answer = { attach: 'attached', detach: 'detached', withdraw: 'withdrawn' }[command.kind];
    thread.waiting.set(`${answer} ${command.mount}`, resolve);
    thread.commands.postMessage(command);
    wake(thread);
  });
}

async function stop(thread: ServerThread): Promise<void> {
  const command: ThreadCommand = { kind: 'stop' };
  if (thread.dead) return;
  thread.commands.postMessage(command);
  wake(thread);
  await thread.stopped;
  // It may have died of it.
  if (thread.dead) return;
  thread.worker.terminate();
  release(thread);
}

function release(thread: ServerThread): void {
  thread.commands.close();
  libc.close(thread.wakeDescriptor);
}

function wake(thread: ServerThread): void {
  const one = new BigUint64Array([1n]);
  libc.write(thread.wakeDescriptor, ptr(one), 8);
}
