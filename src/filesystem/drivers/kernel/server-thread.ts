/**
 * The entry of a server thread (a `Worker`). It never returns to its event loop while mounts are served:
 * it waits in epoll_wait(2), reads requests, and answers them or hands them to the main thread.
 */
import { receiveMessageOnPort } from 'node:worker_threads';
import { NOT_RECORDED } from './journal.ts';
import {
  checked,
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_DATA_OFFSET,
  EPOLL_EVENT_SIZE,
  EPOLLET,
  EPOLLEXCLUSIVE,
  EPOLLIN,
  errno,
  libc,
  type NativeBuffer,
  nativeBuffer,
  nativeView,
} from './libc.ts';
import { openLocalTree } from './local-tree.ts';
import { mapJournal } from './mount-state.ts';
import { Errno, MAX_READ_SIZE, Opcode, OUT_HEADER_SIZE, REQUEST_BUFFER_SIZE } from './protocol.ts';
import { Reply } from './replies.ts';
import { Outcome, RequestHandler } from './request-handler.ts';
import { Request } from './requests.ts';
import type { ThreadCommand, ThreadReport, ThreadStart } from './thread-messages.ts';
import { COUNTERS } from './thread-messages.ts';

declare const self: {
  onmessage: ((event: MessageEvent<ThreadStart>) => void) | null;
  postMessage(report: ThreadReport): void;
};

interface AttachedMount {
  readonly mount: number;
  readonly descriptor: number;
  /** Absent: every request is the main thread's. */
  handler: RequestHandler | undefined;
  /** Whether it stands in the list of mounts to be served next. */
  due: boolean;
  readonly served: Float64Array;
  /** Where in `served` this thread counts. */
  readonly counter: number;
  /** Where requests are read into: this thread's own memory, or its part of the journal. */
  readonly inbox: NativeBuffer;
  readonly record: (request: Uint8Array) => number;
}

const WAKE = 0xffff_ffff;
const EVENTS = 64;
// How many requests of one mount are served before the others get their turn.
const TURN = 64;

const mounts = new Map<number, AttachedMount>();
const request = new Request();
const reply = new Reply(MAX_READ_SIZE);
const ownInbox = nativeBuffer(REQUEST_BUFFER_SIZE);
const events = nativeBuffer(Math.max(1024, EVENTS * EPOLL_EVENT_SIZE));
const counter = nativeBuffer(1024);

self.onmessage = ({ data: { commands, wakeDescriptor } }) => {
  self.onmessage = null;
  const epoll = checked(libc.epoll_create1(0), 'epoll_create1');
  watch(epoll, wakeDescriptor, WAKE, EPOLLIN);
  self.postMessage({ kind: 'ready', epoll });
  serve(epoll, wakeDescriptor, commands);
  libc.close(epoll);
  commands.close();
  self.postMessage({ kind: 'stopped' });
};

function serve(epoll: number, wakeDescriptor: number, commands: MessagePort): void {
  // Mounts whose turn is due, some of them with requests left over from the last one: no new event will tell of
  // those (the watch is edge-triggered). An array, not a Set: this function never returns, and the engine's
  // tables behind a Set that shrinks while it is iterated are kept alive by what lies on the stack.
  const due: AttachedMount[] = [];
  for (;;) {
    const count = libc.epoll_wait(epoll, events.address, EVENTS, due.length > 0 ? 0 : -1);
    if (count === -1 && errno() !== Errno.EINTR) checked(-1, 'epoll_wait');
    for (let i = 0; i < count; i++) {
      const id = events.view.getUint32(i * EPOLL_EVENT_SIZE + EPOLL_DATA_OFFSET, true);
      if (id === WAKE) {
        libc.read(wakeDescriptor, counter.address, 8);
        if (!obey(epoll, commands)) return;
        continue;
      }
      const attached = mounts.get(id);
      if (attached === undefined || attached.due) continue;
      attached.due = true;
      due.push(attached);
    }
    let left = 0;
    for (let i = 0; i < due.length; i++) {
      const attached = due[i];
      if (attached === undefined) continue;
      attached.due = mounts.has(attached.mount) && takeTurn(epoll, attached);
      if (attached.due) due[left++] = attached;
    }
    due.length = left;
  }
}

/** Serves up to {@link TURN} requests; returns whether there may be more. */
function takeTurn(epoll: number, attached: AttachedMount): boolean {
  const { descriptor, handler, inbox } = attached;
  for (let served = 0; served < TURN; served++) {
    const length = libc.read(descriptor, inbox.address, REQUEST_BUFFER_SIZE);
    if (length === -1) {
      const number = errno();
      if (number === Errno.EAGAIN) return false;
      // ENOENT: the request was given up between the kernel's queue and here.
      if (number === Errno.EINTR || number === Errno.ENOENT) continue;
      drop(epoll, attached);
      self.postMessage({ kind: 'gone', mount: attached.mount, errno: number });
      return false;
    }
    const malformed = request.decode(inbox.bytes, inbox.view, length);
    if (malformed > 0) {
      reply.begin(request.uniqueLow, request.uniqueHigh);
      reply.fail(malformed);
      reply.finish();
      libc.write(descriptor, reply.memory.address, reply.length);
    }
    const outcome = malformed !== 0 ? Outcome.SILENT : (handler?.handle(request, reply) ?? Outcome.FORWARD);
    if (outcome === Outcome.REPLY) {
      // A failure means that nobody waits any more: interrupted, or unmounted.
      libc.write(descriptor, reply.memory.address, reply.length);
      if (request.opcode === Opcode.READ) count(attached, reply.length - OUT_HEADER_SIZE);
    } else if (outcome === Outcome.FORWARD) {
      const bytes = inbox.bytes.slice(0, length);
      self.postMessage({ kind: 'request', mount: attached.mount, bytes, record: attached.record(bytes) });
    }
    // For the journal: this inbox holds no unanswered request.
    inbox.view.setUint32(0, 0, true);
  }
  return true;
}

function count({ served, counter }: AttachedMount, bytes: number): void {
  served[counter] = (served[counter] ?? 0) + 1;
  served[counter + 1] = (served[counter + 1] ?? 0) + bytes;
}

/** Carries out what the main thread asked for; returns false when the thread is to end. */
function obey(epoll: number, commands: MessagePort): boolean {
  for (;;) {
    const received = receiveMessageOnPort(commands);
    if (received === undefined) return true;
    const command: ThreadCommand = received.message;
    if (command.kind === 'stop') return false;
    if (command.kind === 'attach') {
      self.postMessage({ kind: 'attached', mount: command.mount, failure: attach(epoll, command) });
      continue;
    }
    const attached = mounts.get(command.mount);
    if (command.kind === 'withdraw') {
      if (attached !== undefined) attached.handler = undefined;
      self.postMessage({ kind: 'withdrawn', mount: command.mount });
    } else {
      if (attached !== undefined) drop(epoll, attached);
      self.postMessage({ kind: 'detached', mount: command.mount });
    }
  }
}

/** Starts serving a mount; returns what went wrong. */
function attach(epoll: number, command: ThreadCommand & { kind: 'attach' }): string | undefined {
  const { mount, thread, connection } = command;
  const { descriptor, data, trackFrom, served, journalPath } = connection;
  try {
    const journal = journalPath === undefined ? undefined : mapJournal(journalPath);
    mounts.set(mount, {
      mount,
      descriptor,
      handler: data === undefined ? undefined : new RequestHandler(openLocalTree(data), trackFrom),
      due: false,
      served: new Float64Array(served),
      counter: thread * COUNTERS,
      inbox: journal === undefined ? ownInbox : nativeView(journal.inbox(thread)),
      record: (bytes) => journal?.keep(thread, bytes) ?? NOT_RECORDED,
    });
    watch(epoll, descriptor, mount, EPOLLIN | EPOLLET | EPOLLEXCLUSIVE);
    return undefined;
  } catch (error) {
    mounts.delete(mount);
    return error instanceof Error ? error.message : String(error);
  }
}

function drop(epoll: number, attached: AttachedMount): void {
  libc.epoll_ctl(epoll, EPOLL_CTL_DEL, attached.descriptor, null);
  mounts.delete(attached.mount);
}

function watch(epoll: number, descriptor: number, id: number, interest: number): void {
  events.bytes.fill(0, 0, EPOLL_EVENT_SIZE);
  events.view.setUint32(0, interest >>> 0, true);
  events.view.setUint32(EPOLL_DATA_OFFSET, id, true);
  checked(libc.epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, events.address), 'epoll_ctl');
}
