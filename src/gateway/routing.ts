import type { Context, Hono } from 'hono';
import { z } from 'zod';
import type { WorkspaceDatabase } from '../database/index.ts';
import { ImgcredError, wordIssue } from '../errors/index.ts';
import type { SocketSession } from '../protocol/index.ts';
import type { Identity, Role } from './identity.ts';

/** What the authentication put into a request's context. */
export interface GatewayEnvironment {
  Variables: { identity: Identity };
  Bindings: {
    local: boolean;
    origin: string | undefined;
    /** Told once it is known who asks: the connection may be silent from then on for as long as it likes. */
    onIdentified?: () => void;
    /** Turns the request into a WebSocket; false where it does not ask for one. */
    upgrade?: (session: SocketSession) => boolean;
  };
}
export type GatewayContext = Context<GatewayEnvironment>;
export type GatewayApp = Hono<GatewayEnvironment>;

/** What a handler is given beside the HTTP context. */
export interface Scope {
  readonly identity: Identity;
  readonly workspace: WorkspaceDatabase;
}

export type Method = 'get' | 'post' | 'put' | 'delete';

/** One route: the role that it needs stands beside it, and nothing is reachable that is not in such a list. */
export interface Route {
  readonly method: Method;
  readonly path: string;
  readonly role: Role;
  readonly summary: string;
  handle(c: GatewayContext, scope: Scope): Response | Promise<Response>;
}

const LARGEST_BODY = 8 << 20;

/**
 * The request's JSON body, checked.
 *
 * @throws ImgcredError INVALID_INPUT naming the field
 */
export async function readBody<T>(c: GatewayContext, schema: z.ZodType<T>): Promise<T> {
  const text = await bodyText(c.req.raw);
  let json: unknown;
  try {
    json = text === '' ? {} : JSON.parse(text);
  } catch {
    throw new ImgcredError('INVALID_INPUT', 'the body is not JSON', {
      hint: 'send content-type: application/json',
    });
  }
  const parsed = schema.safeParse(json, { error: wordIssue });
  if (parsed.success) return parsed.data;
  throw invalid(parsed.error);
}

async function bodyText({ body, headers }: Request): Promise<string> {
  const tooLarge = new ImgcredError('INVALID_INPUT', 'the body is larger than 8 MiB');
  if (Number(headers.get('content-length') ?? 0) > LARGEST_BODY) throw tooLarge;
  const parts: Uint8Array[] = [];
  let length = 0;
  // A length need not be announced: what is too much is not kept.
  for await (const part of body ?? []) {
    length += part.length;
    if (length > LARGEST_BODY) throw tooLarge;
    parts.push(part);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts));
  } catch {
    throw new ImgcredError('INVALID_INPUT', 'the body is not UTF-8');
  }
}

/** A query parameter, checked. @throws ImgcredError INVALID_INPUT */
export function readQuery<T>(c: GatewayContext, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(c.req.query(), { error: wordIssue });
  if (parsed.success) return parsed.data;
  throw invalid(parsed.error);
}

/** `true`/`false` as query parameters spell it. */
export const queryFlag = z
  .enum(['true', 'false'])
  .default('false')
  .transform((value) => value === 'true');

// Says which field is wrong and what was expected, never what came: a body with a slip in it may hold a credential,
// in a key's place too.
function invalid(error: z.ZodError): ImgcredError {
  const issue = error.issues[0];
  const path = issue?.path ?? [];
  const named = issue?.code === 'invalid_key' ? path.slice(0, -1) : path;
  const field = named.length === 0 ? 'the request' : named.map(String).join('.');
  return new ImgcredError('INVALID_INPUT', `${field}: ${problemOf(issue)}`);
}

function problemOf(issue: z.core.$ZodIssue | undefined): string {
  if (issue?.code === 'invalid_key') return `a key of it ${issue.issues[0]?.message ?? 'is not as expected'}`;
  if (issue?.code === 'unrecognized_keys') {
    const known = issue.keys.every((key) => /^[a-z][a-z_]{0,40}$/.test(key));
    return known ? `there is no field ${issue.keys.join(', ')}` : 'it has a field that is not known';
  }
  return issue?.message ?? 'is not as expected';
}

/** Path parameter `name`, which Hono has decoded. */
export function parameter(c: GatewayContext, name: string): string {
  return c.req.param(name) ?? '';
}

/**
 * What concerns the whole server is not there for a token that is bound to one workspace.
 *
 * @throws ImgcredError NOT_FOUND
 */
export function requireUnbound(identity: Identity): void {
  if (identity.workspaceId === undefined) return;
  throw new ImgcredError('NOT_FOUND', 'a token that is bound to a workspace can’t see to the whole server', {
    hint: 'use an admin token that is not bound to a workspace',
  });
}

/** Turns a request into a WebSocket. @throws ImgcredError UNSUPPORTED where it asks for none */
export function upgrade(c: GatewayContext, session: SocketSession): Response {
  if (c.env.upgrade?.(session) === true) return new Response(null);
  throw new ImgcredError('UNSUPPORTED', 'this route speaks WebSocket only', {
    hint: 'send Connection: Upgrade and Upgrade: websocket',
  });
}
