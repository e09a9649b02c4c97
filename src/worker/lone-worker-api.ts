import type { z } from 'zod';
import { VERSION } from '../config/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import {
  mountImageSchema,
  type NamedImage,
  type NodeServices,
  type PinView,
  parseJson,
  pruneCacheSchema,
  unmountImageSchema,
} from '../protocol/index.ts';
import { formatReference, normalReference } from '../reference/index.ts';

/** A worker whose gateway is in another process, as those see it who ask on its machine. */
export interface LoneWorker {
  readonly name: string;
  /** Its id, once it has registered. */
  readonly workerId: () => string | undefined;
  /** Its machine, once that can be asked: before the gateway has answered. */
  readonly node: () => LoneNode | undefined;
  /** Where its gateway is, and the file with that one's certificate authority. */
  readonly gateway: string | undefined;
  readonly gatewayCa: string | undefined;
}

/** What a worker without a gateway beside it can tell and do of its machine. */
export interface LoneNode
  extends Pick<
    NodeServices,
    'listMounts' | 'unmountImage' | 'imageState' | 'unpin' | 'listPins' | 'cache' | 'cachePrune'
  > {
  /** The images that are mounted or pinned here. */
  knownImages(): Promise<NamedImage[]>;
}

interface Call {
  readonly request: Request;
  readonly node: LoneNode;
  /** The image that the path names. */
  readonly image: string;
}

type Handler = (call: Call) => Promise<unknown>;

const NO_SUCH = 'see imgcred image pins';

/**
 * The part of the API that concerns a worker's own machine, for its Unix socket: mounts, pins and the content cache,
 * by the same paths as a gateway's. It knows no image by itself and holds no credential: what needs one is ordered at
 * the gateway, and the refusal says how.
 */
export class LoneWorkerApi {
  readonly #worker: LoneWorker;
  readonly #routes: readonly (readonly [method: string, path: RegExp, handle: Handler])[];

  constructor(worker: LoneWorker) {
    this.#worker = worker;
    this.#routes = [
      ['GET', /^\/v1\/node\/mounts$/, async ({ node }) => ({ mounts: await node.listMounts() })],
      ['POST', /^\/v1\/node\/umount$/, (call) => this.#unmount(call)],
      ['GET', /^\/v1\/node\/pins$/, async ({ node, request }) => ({ pins: await pinsOf(node, request) })],
      ['DELETE', /^\/v1\/images\/([^/]+)\/pin$/, (call) => this.#unpin(call)],
      ['GET', /^\/v1\/images\/([^/]+)\/local$/, (call) => this.#state(call)],
      ['GET', /^\/v1\/node\/cache$/, ({ node }) => node.cache()],
      ['POST', /^\/v1\/node\/cache\/prune$/, (call) => this.#prune(call)],
      ['POST', /^\/v1\/node\/mounts$/, (call) => this.#refuseMount(call)],
      ['POST', /^\/v1\/images\/([^/]+)\/pin$/, ({ image }) => this.#refusePin(image)],
    ];
  }

  /** Answers a request of the machine's own user. */
  async fetch(request: Request): Promise<Response> {
    try {
      return Response.json((await this.#answer(request)) ?? {});
    } catch (thrown) {
      const error = toImgcredError(thrown);
      return Response.json(error, { status: error.status });
    }
  }

  async #answer(request: Request): Promise<unknown> {
    const { name, workerId, gateway } = this.#worker;
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === '/healthz') return { status: 'ok', version: VERSION };
    if (pathname === '/v1/node/worker') return { worker: true, name, id: workerId(), gateway };
    for (const [method, path, handle] of this.#routes) {
      const [matched, image = ''] = path.exec(pathname) ?? [];
      if (matched === undefined || method !== request.method) continue;
      this.#requireMeant(searchParams.get('worker'));
      return handle({ request, node: this.#node(), image: decoded(image) });
    }
    throw new ImgcredError(
      'UNSUPPORTED',
      `only the worker ${name} runs on this data directory: images, containers and secrets are its gateway’s`,
      { hint: gateway === undefined ? this.#startGateway : `add ${this.#connection} (a token of your own)` },
    );
  }

  /** A worker can be meant that is on another machine. */
  #requireMeant(named: string | null): void {
    const { name, workerId } = this.#worker;
    if (named === null || named === '' || named === name || named === workerId()) return;
    throw new ImgcredError('NOT_FOUND', `the worker on this data directory is ${name}, not ${named}`, {
      hint: `ask its gateway: add ${this.#connection}`,
    });
  }

  #node(): LoneNode {
    const node = this.#worker.node();
    if (node !== undefined) return node;
    throw new ImgcredError('NO_WORKER', `the worker ${this.#worker.name} is just starting`, {
      hint: 'ask again',
    });
  }

  async #unmount({ node, request }: Call): Promise<unknown> {
    const { target, force } = await bodyOf(request, unmountImageSchema);
    await node.unmountImage(target, force);
    return { target };
  }

  async #prune({ node, request }: Call): Promise<unknown> {
    return node.cachePrune(await bodyOf(request, pruneCacheSchema));
  }

  async #unpin({ node, request, image }: Call): Promise<unknown> {
    const pin = theOne(image, await pinsOf(node, request));
    if (pin === undefined)
      throw new ImgcredError('NOT_FOUND', `${image} is not pinned here`, { hint: NO_SUCH });
    return node.unpin({ workspace_id: pin.workspace_id, named: pin.image_id });
  }

  async #state({ node, request, image }: Call): Promise<unknown> {
    const known = theOne(image, inWorkspace(await node.knownImages(), request));
    if (known !== undefined) return node.imageState(known);
    throw new ImgcredError(
      'UNSUPPORTED',
      `${image} is neither mounted nor pinned here, and the worker ${this.#worker.name} knows no other images`,
      { hint: this.#order('of role runner', 'image du', image) },
    );
  }

  async #refuseMount({ request }: Call): Promise<never> {
    const { image, target } = await bodyOf(request, mountImageSchema);
    throw this.#ordered('of role admin, not bound to a workspace', 'mount', image, target);
  }

  async #refusePin(image: string): Promise<never> {
    throw this.#ordered('of role operator', 'image pin', image);
  }

  #ordered(token: string, ...command: readonly string[]): ImgcredError {
    return new ImgcredError(
      'UNSUPPORTED',
      `the worker ${this.#worker.name} gets an image with its credential from its gateway alone, which has to be asked`,
      { hint: this.#order(token, ...command) },
    );
  }

  /** @param token which one the gateway wants for it */
  #order(token: string, ...command: readonly string[]): string {
    const { name, gateway } = this.#worker;
    if (gateway === undefined) return this.#startGateway;
    return `imgcred ${command.join(' ')} --worker ${name} ${this.#connection} (a token ${token})`;
  }

  get #connection(): string {
    const { gateway, gatewayCa } = this.#worker;
    const trust = gatewayCa === undefined ? '' : ` --server-ca ${gatewayCa}`;
    return `--server ${gateway ?? 'URL'}${trust} --token-file FILE`;
  }

  get #startGateway(): string {
    return 'start the gateway: imgcred serve --role=gateway, on the same data directory';
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new ImgcredError('INVALID_INPUT', 'the path is not as a URL spells it', { cause });
  }
}

async function bodyOf<T>(request: Request, schema: z.ZodType<T>): Promise<T> {
  const text = await request.text();
  const parsed = schema.safeParse(text === '' ? {} : parseJson(text));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ImgcredError(
    'INVALID_INPUT',
    `${issue?.path.join('.') || 'the request'}: ${issue?.message ?? 'is not as expected'}`,
  );
}

async function pinsOf(node: LoneNode, request: Request): Promise<PinView[]> {
  return inWorkspace(await node.listPins(), request);
}

/** Those of the workspace that a request is for: of all of them where it names none. */
function inWorkspace<T extends { readonly workspace_id: string }>(all: readonly T[], request: Request): T[] {
  const wanted = request.headers.get('imgcred-workspace') ?? '';
  if (wanted !== '' && !wanted.startsWith('ws_')) {
    throw new ImgcredError('UNSUPPORTED', `a worker knows workspaces by their ids, not as ${wanted}`, {
      hint: 'leave out --workspace (and IMGCRED_WORKSPACE), or give an id: imgcred image pins --json has them',
    });
  }
  return all.filter((each) => wanted === '' || each.workspace_id === wanted);
}

type Image = Pick<NamedImage, 'workspace_id' | 'image_id' | 'reference'>;

/** The image that is meant, by id or reference. @throws ImgcredError CONFLICT where several workspaces have it */
function theOne<T extends Image>(named: string, all: readonly T[]): T | undefined {
  const reference = /^img_/.test(named) ? undefined : formatReference(normalReference(named));
  const [first, ...others] = all.filter((each) =>
    reference === undefined ? each.image_id === named : each.reference === reference,
  );
  if (first === undefined || others.every((other) => other.workspace_id === first.workspace_id)) return first;
  throw new ImgcredError('CONFLICT', `${named} is here for several workspaces`, {
    hint: 'say which by --workspace ID: imgcred image pins --json has them',
  });
}
