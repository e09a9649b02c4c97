import { Hono } from 'hono';
import { VERSION } from '../config/index.ts';
import { Secret } from '../credentials/index.ts';
import type { Database } from '../database/index.ts';
import { ImgcredError, toImgcredError } from '../errors/index.ts';
import type { Logger } from '../observability/index.ts';
import type { TokenStore } from '../secrets/index.ts';
import { type Identity, mayAct, workspaceOf } from './identity.ts';
import type { GatewayApp, GatewayEnvironment, Route } from './routing.ts';

export interface GatewayOptions {
  readonly database: Database;
  readonly tokens: TokenStore;
  readonly routes: readonly Route[];
  readonly logger: Logger;
  /** Routes of other roles, behind the same authentication with a token of role `worker`. */
  readonly mounted?: readonly MountedApp[];
}

export interface MountedApp {
  readonly prefix: string;
  /** Whether it is there for processes on this data directory alone, over the Unix socket. */
  readonly local?: boolean;
  readonly app: {
    fetch(request: Request, env: MountedBindings): Response | Promise<Response>;
  };
}

/** What a mounted app is given beside the request. */
export type MountedBindings = GatewayEnvironment['Bindings'] & { readonly caller: Identity };

const LONGEST_LOGGED_PATH = 200;

/**
 * The HTTP API. A request over the Unix socket is the machine's own user (role `admin`): the socket's mode is the
 * check. Any other needs `Authorization: Bearer TOKEN`. What a token may not see answers as if it were not there.
 */
export function createGateway(options: GatewayOptions): GatewayApp {
  const app = new Hono<GatewayEnvironment>();
  app.use(async (c, next) => {
    const started = performance.now();
    await next();
    options.logger.debug('request', {
      method: c.req.method,
      path: c.req.path,
      status: c.res.status,
      ms: Math.round(performance.now() - started),
    });
  });
  app.onError((thrown, c) => {
    const error = toImgcredError(thrown);
    if (error.code === 'INTERNAL') {
      options.logger.error('request failed', {
        path: c.req.path,
        error: error.message,
        stack: stackOf(thrown),
      });
    }
    if (error.code === 'UNAUTHORIZED') {
      // For whoever watches for guesses. Never the token: it may be a right one that has just expired.
      options.logger.warn('request without a valid token', {
        origin: c.env.origin,
        method: c.req.method,
        path: c.req.path.slice(0, LONGEST_LOGGED_PATH),
        reason: error.message,
      });
    }
    return new Response(JSON.stringify(error), {
      status: error.status,
      headers: { 'content-type': 'application/json' },
    });
  });
  app.notFound((c) => {
    throw unknownRoute(c.req);
  });
  app.get('/healthz', (c) => c.json({ status: 'ok', version: VERSION }));
  app.use('/v1/*', async (c, next) => {
    c.set('identity', identify(c.req.header('authorization'), c.env, options.tokens));
    c.env.onIdentified?.();
    // Hono would answer it by the route for GET, and leave the answer's body, an open log say, unread and unended.
    if (c.req.method === 'HEAD') throw unknownRoute(c.req);
    await next();
  });
  for (const route of options.routes) {
    app.on(route.method.toUpperCase(), route.path, async (c) => {
      const identity = c.get('identity');
      requireRole(identity, route.role);
      const id = workspaceOf(identity, c.req.header('imgcred-workspace'), options.database);
      return route.handle(c, { identity, workspace: options.database.workspace(id) });
    });
  }
  for (const { prefix, local = false, app: other } of options.mounted ?? []) {
    app.all(`${prefix}/*`, async (c) => {
      const identity = c.get('identity');
      requireRole(identity, 'worker');
      // These routes hand out requests of every workspace, with the credentials of their images.
      if (identity.workspaceId !== undefined || (local && !c.env.local)) throw unknownRoute(c.req);
      return other.fetch(c.req.raw, { ...c.env, caller: identity });
    });
  }
  return app;
}

function unknownRoute(request: { readonly method: string; readonly path: string }): ImgcredError {
  return new ImgcredError('NOT_FOUND', `there is no route ${request.method} ${request.path}`);
}

function requireRole(identity: Identity, needed: Route['role']): void {
  if (mayAct(identity.role, needed)) return;
  throw new ImgcredError(
    'FORBIDDEN',
    `this needs a token of role ${needed}; yours is of role ${identity.role}`,
    {
      hint: `ask an admin for one: imgcred token create --role ${needed}`,
    },
  );
}

function identify(
  header: string | undefined,
  connection: GatewayEnvironment['Bindings'],
  tokens: TokenStore,
): Identity {
  const origin = connection.origin;
  if (header === undefined && connection.local) {
    return { actor: 'local', origin: 'unix socket', role: 'admin', workspaceId: undefined };
  }
  const text = /^Bearer +(\S+)$/i.exec(header ?? '')?.[1];
  if (text === undefined) {
    throw new ImgcredError('UNAUTHORIZED', 'this API needs a token', {
      hint: 'send Authorization: Bearer TOKEN; the first start wrote one to admin-token in the data directory',
    });
  }
  const token = tokens.authenticate(new Secret(text));
  return { actor: `token ${token.name}`, origin, role: token.role, workspaceId: token.workspaceId, token };
}

function stackOf(thrown: unknown): string | undefined {
  return thrown instanceof Error ? thrown.stack?.split('\n').slice(0, 6).join(' | ') : undefined;
}
