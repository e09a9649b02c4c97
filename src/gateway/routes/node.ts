import { ImgcredError, toImgcredError } from '../../errors/index.ts';
import {
  type ImageRequests,
  mountImageSchema,
  type NodeServices,
  type PinLine,
  pruneCacheSchema,
  unmountImageSchema,
} from '../../protocol/index.ts';
import { formatReference } from '../../reference/index.ts';
import { findImage, normalReference } from '../find-image.ts';
import {
  type GatewayContext,
  parameter,
  type Route,
  readBody,
  requireUnbound,
  type Scope,
} from '../routing.ts';
import { ndjson } from '../streams.ts';

export interface NodeRoutesOptions {
  /** The worker of this process, started where it is not yet; undefined where there will be none. */
  readonly node: () => Promise<NodeServices | undefined>;
  readonly images: ImageRequests | undefined;
}

/** What the worker on this machine does beside running containers: mounts, pins, the content cache. */
export function nodeRoutes({ node, images }: NodeRoutesOptions): Route[] {
  const here = async (): Promise<NodeServices> => {
    const services = await node();
    if (services !== undefined) return services;
    throw new ImgcredError('UNSUPPORTED', 'this server has no worker in its own process', {
      hint: 'ask on the machine that the worker runs on, with --data-dir',
    });
  };
  /** The image that a request is about, with its credential. */
  const open = async ({ workspace, identity }: Scope, named: string, purpose: string) => {
    const image = findImage(workspace, named);
    if (images !== undefined)
      return images.requestImage(workspace.id, image.id, { actor: identity.actor, purpose });
    throw new ImgcredError('UNSUPPORTED', 'this server has no scheduler in its own process');
  };
  return [
    {
      method: 'post',
      path: '/v1/node/worker',
      role: 'admin',
      summary: 'Start the worker of a command that acts as the server, where it has none yet',
      async handle(c) {
        requireLocal(c);
        return c.json({ worker: (await node()) !== undefined });
      },
    },
    {
      method: 'post',
      path: '/v1/node/mounts',
      role: 'admin',
      summary: 'Mount an image at a directory of the host; over the Unix socket only',
      async handle(c, scope) {
        requireLocal(c);
        const { image, target } = await readBody(c, mountImageSchema);
        const services = await here();
        return c.json(await services.mountImage(await open(scope, image, 'mount'), target), 201);
      },
    },
    {
      method: 'post',
      path: '/v1/node/umount',
      role: 'admin',
      summary: 'Unmount an image from a directory of the host; over the Unix socket only',
      async handle(c) {
        requireLocal(c);
        const { target, force } = await readBody(c, unmountImageSchema);
        await (await here()).unmountImage(target, force);
        return c.json({ target });
      },
    },
    {
      method: 'get',
      path: '/v1/node/mounts',
      role: 'admin',
      summary: 'List the lazy mounts of this node: bytes fetched, failures by class',
      async handle(c, { identity }) {
        requireUnbound(identity);
        return c.json({ mounts: await (await here()).listMounts() });
      },
    },
    {
      method: 'get',
      path: '/v1/images/:id/local',
      role: 'runner',
      summary: 'How much of an image is on this node, layer by layer',
      async handle(c, { workspace }) {
        const image = findImage(workspace, parameter(c, 'id'));
        const state = await (await here()).imageState({
          workspace_id: workspace.id,
          image_id: image.id,
          reference: image.reference,
          index_digest: image.indexDigest,
        });
        return c.json(state);
      },
    },
    {
      method: 'post',
      path: '/v1/images/:id/pin',
      role: 'operator',
      summary: 'Make an image wholly local and keep it; application/x-ndjson with progress',
      async handle(c, scope) {
        const services = await here();
        const request = await open(scope, parameter(c, 'id'), 'pin');
        return ndjson(pinLines(services.pin(request, c.req.raw.signal)));
      },
    },
    {
      method: 'delete',
      path: '/v1/images/:id/pin',
      role: 'operator',
      summary: 'Let an image be evicted again',
      async handle(c, { workspace }) {
        const named = nameOf(parameter(c, 'id'));
        return c.json(await (await here()).unpin({ workspace_id: workspace.id, named }));
      },
    },
    {
      method: 'get',
      path: '/v1/node/pins',
      role: 'runner',
      summary: 'List the pinned images of the workspace',
      async handle(c, { workspace }) {
        const pins = await (await here()).listPins();
        return c.json({ pins: pins.filter((pin) => pin.workspace_id === workspace.id) });
      },
    },
    {
      method: 'get',
      path: '/v1/node/cache',
      role: 'admin',
      summary: 'What is in the content cache of this node',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const services = await here();
        return c.json({ entries: await services.cacheList(), status: await services.cacheStatus() });
      },
    },
    {
      method: 'post',
      path: '/v1/node/cache/prune',
      role: 'admin',
      summary: 'Delete cached content that no mount and no pin holds',
      async handle(c, { identity }) {
        requireUnbound(identity);
        return c.json(await (await here()).cachePrune(await readBody(c, pruneCacheSchema)));
      },
    },
  ];
}

// A token's holder may be on another machine, and must not choose directories of this one.
function requireLocal(c: GatewayContext): void {
  if (c.env.local) return;
  throw new ImgcredError('FORBIDDEN', 'only the machine’s own user may mount on its directories', {
    hint: 'run the command on the server’s machine, with its --data-dir',
  });
}

/** An image's name as pins know it: the image itself may be forgotten already. */
function nameOf(named: string): string {
  return /^img_/.test(named) ? named : formatReference(normalReference(named));
}

async function* pinLines(lines: AsyncGenerator<PinLine>): AsyncGenerator<PinLine> {
  try {
    yield* lines;
  } catch (thrown) {
    yield { kind: 'error', ...toImgcredError(thrown).toJSON() };
  }
}
