import { ImgcredError, toImgcredError } from '../../errors/index.ts';
import {
  type ImageOrder,
  mountImageSchema,
  type PinLine,
  pruneCacheSchema,
  unmountImageSchema,
} from '../../protocol/index.ts';
import { formatReference, normalReference } from '../../reference/index.ts';
import { namingSecret, type RefusedSecret } from '../../secrets/index.ts';
import { findImage } from '../find-image.ts';
import type { Identity } from '../identity.ts';
import type { Nodes } from '../nodes.ts';
import {
  type GatewayContext,
  parameter,
  type Route,
  readBody,
  requireUnbound,
  type Scope,
} from '../routing.ts';
import { ndjson } from '../streams.ts';

/**
 * What workers do beside running containers: mounts, pins, the content cache. `?worker=NAME` says whose machine is
 * meant; without it, it is the server's own.
 */
export function nodeRoutes(nodes: Nodes): Route[] {
  const nodeOf = (c: GatewayContext) => {
    const named = namedWorker(c);
    return named === undefined ? nodes.here() : nodes.of(named);
  };
  /** The image that a request is about, for whom and what for. */
  const orderOf = ({ workspace, identity }: Scope, named: string, purpose: string): ImageOrder => ({
    workspace_id: workspace.id,
    image_id: findImage(workspace, named).id,
    actor: identity.actor,
    purpose,
  });
  return [
    {
      method: 'post',
      path: '/v1/node/worker',
      role: 'admin',
      summary: 'Start the worker of a command that acts as the server, where it has none yet',
      async handle(c) {
        requireLocal(c);
        return c.json({ worker: await nodes.hasOwn() });
      },
    },
    {
      method: 'post',
      path: '/v1/node/mounts',
      role: 'admin',
      summary:
        'Mount an image at a directory of a worker’s host; of the server’s own over the Unix socket only',
      async handle(c, scope) {
        requireMayMount(c, scope.identity);
        const { image, target } = await readBody(c, mountImageSchema);
        const node = await nodeOf(c);
        const mounted = node.mountImage(orderOf(scope, image, 'mount'), target);
        const named = mounted.catch((thrown: unknown) => {
          throw namingSecret(thrown, secretOf(scope, image));
        });
        return c.json(await named, 201);
      },
    },
    {
      method: 'post',
      path: '/v1/node/umount',
      role: 'admin',
      summary:
        'Unmount an image from a directory of a worker’s host; of the server’s own over the Unix socket only',
      async handle(c, { identity }) {
        requireMayMount(c, identity);
        const { target, force } = await readBody(c, unmountImageSchema);
        await (await nodeOf(c)).unmountImage(target, force);
        return c.json({ target });
      },
    },
    {
      method: 'get',
      path: '/v1/node/mounts',
      role: 'admin',
      summary: 'List the lazy mounts of a node: bytes fetched, failures by class',
      async handle(c, { identity }) {
        requireUnbound(identity);
        return c.json({ mounts: await (await nodeOf(c)).listMounts() });
      },
    },
    {
      method: 'get',
      path: '/v1/images/:id/local',
      role: 'runner',
      summary: 'How much of an image is on a node, layer by layer',
      async handle(c, { workspace }) {
        const image = findImage(workspace, parameter(c, 'id'));
        const state = await (await nodeOf(c)).imageState({
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
        const node = await nodeOf(c);
        const named = parameter(c, 'id');
        const lines = node.pin(orderOf(scope, named, 'pin'), c.req.raw.signal);
        return ndjson(pinLines(lines, () => secretOf(scope, named)));
      },
    },
    {
      method: 'delete',
      path: '/v1/images/:id/pin',
      role: 'operator',
      summary: 'Let an image be evicted again',
      async handle(c, { workspace }) {
        const named = nameOf(parameter(c, 'id'));
        return c.json(await (await nodeOf(c)).unpin({ workspace_id: workspace.id, named }));
      },
    },
    {
      method: 'get',
      path: '/v1/node/pins',
      role: 'runner',
      summary: 'List the pinned images of the workspace',
      async handle(c, { workspace }) {
        const pins = await (await nodeOf(c)).listPins();
        return c.json({ pins: pins.filter((pin) => pin.workspace_id === workspace.id) });
      },
    },
    {
      method: 'get',
      path: '/v1/node/cache',
      role: 'admin',
      summary: 'What is in the content cache of a node',
      async handle(c, { identity }) {
        requireUnbound(identity);
        return c.json(await (await nodeOf(c)).cache());
      },
    },
    {
      method: 'post',
      path: '/v1/node/cache/prune',
      role: 'admin',
      summary: 'Delete cached content that no mount and no pin holds',
      async handle(c, { identity }) {
        requireUnbound(identity);
        return c.json(await (await nodeOf(c)).cachePrune(await readBody(c, pruneCacheSchema)));
      },
    },
  ];
}

function namedWorker(c: GatewayContext): string | undefined {
  const named = c.req.query('worker');
  return named === '' ? undefined : named;
}

/** Refuses all but the machine's own user. @throws ImgcredError FORBIDDEN */
function requireLocal(c: GatewayContext): void {
  if (c.env.local) return;
  throw new ImgcredError('FORBIDDEN', 'only the machine’s own user may ask for that', {
    hint: 'run the command on the server’s machine, with its --data-dir',
  });
}

/**
 * A token's holder may be on another machine, and must not take its directories for the server's. Who names a worker
 * knows whose they are; he gets no more than by a container there that a directory of the host is bound into, which
 * takes the same token.
 *
 * @throws ImgcredError FORBIDDEN, NOT_FOUND
 */
function requireMayMount(c: GatewayContext, identity: Identity): void {
  if (c.env.local) return;
  if (namedWorker(c) !== undefined) {
    requireUnbound(identity);
    return;
  }
  throw new ImgcredError('FORBIDDEN', 'only the machine’s own user may mount on its directories', {
    hint: 'run the command on the server’s machine, with its --data-dir, or say whose directory it is with --worker NAME',
  });
}

/** The secret that an image is read with. */
function secretOf({ workspace }: Scope, named: string): RefusedSecret | undefined {
  const used = findImage(workspace, named).credential;
  return used === undefined ? undefined : workspace.secrets.find(used.secretId);
}

/** An image's name as pins know it: the image itself may be forgotten already. */
function nameOf(named: string): string {
  return /^img_/.test(named) ? named : formatReference(normalReference(named));
}

async function* pinLines(
  lines: AsyncGenerator<PinLine>,
  secret: () => RefusedSecret | undefined,
): AsyncGenerator<PinLine> {
  try {
    yield* lines;
  } catch (thrown) {
    yield { kind: 'error', ...toImgcredError(namingSecret(thrown, secret())).toJSON() };
  }
}
