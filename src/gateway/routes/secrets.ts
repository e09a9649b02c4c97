import { z } from 'zod';
import { detectCredentialType, marshalCredentials, Secret } from '../../credentials/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import { setSecretSchema } from '../../protocol/index.ts';
import { normalizeRegistryHost } from '../../reference/index.ts';
import type { CredentialProof, Proof, SecretStore } from '../../secrets/index.ts';
import { parameter, queryFlag, type Route, readBody, readQuery } from '../routing.ts';
import { iso, secretView } from '../views.ts';

const versionNumber = z.int().min(1);

export interface SecretRouteOptions {
  readonly store: SecretStore;
  readonly verify: CredentialProof;
  /** Told of a secret whose active value is another one now. */
  readonly onChange: (workspaceId: string, secretId: string) => void;
}

export function secretRoutes({ store, verify, onChange }: SecretRouteOptions): Route[] {
  const proof = (noVerify: boolean): Proof => (noVerify ? 'none' : { verify });
  return [
    {
      method: 'get',
      path: '/v1/secrets',
      role: 'operator',
      summary: 'List secrets, without their values',
      handle: (c, { workspace }) => c.json({ secrets: store.list(workspace.id).map(secretView) }),
    },
    {
      method: 'get',
      path: '/v1/secrets/:name',
      role: 'operator',
      summary: 'Show a secret, without its value, and the images that use it',
      handle(c, { workspace }) {
        const secret = store.show(workspace.id, parameter(c, 'name'));
        const images = workspace.images.usingSecret(secret.id).map((image) => image.reference);
        return c.json({ ...secretView(secret), images });
      },
    },
    {
      method: 'put',
      path: '/v1/secrets/:name',
      role: 'operator',
      summary: 'Give a secret a new value, or make it; a registry’s is tried against its images first',
      async handle(c, { workspace, identity }) {
        const name = parameter(c, 'name');
        const request = await readBody(c, setSecretSchema);
        const existing = store.find(workspace.id, name);
        const wanted = givenValue(request, existing?.registry);
        if (existing === undefined) {
          const created = await store.create(workspace.id, { name, ...wanted }, identity);
          return c.json(secretView(created), 201);
        }
        if (existing.kind !== wanted.kind) {
          throw new ImgcredError(
            'CONFLICT',
            `the secret ${name} is ${existing.kind === 'registry' ? 'a registry’s' : 'not a registry’s'}`,
            {
              hint:
                existing.kind === 'registry'
                  ? 'give credentials, not a value'
                  : 'give a value, not credentials',
            },
          );
        }
        const secret = await store.set(workspace.id, name, wanted.value, identity, proof(request.no_verify));
        onChange(workspace.id, secret.id);
        return c.json(secretView(secret));
      },
    },
    {
      method: 'post',
      path: '/v1/secrets/:name/reveal',
      role: 'operator',
      summary: 'The value itself (audited)',
      async handle(c, { workspace, identity }) {
        const { version } = await readBody(c, z.strictObject({ version: versionNumber.optional() }));
        const read = await store.reveal(workspace.id, parameter(c, 'name'), identity, version);
        return c.json({ name: read.secret.name, version: read.version, value: read.value.reveal() }, 200, {
          'cache-control': 'no-store',
        });
      },
    },
    {
      method: 'get',
      path: '/v1/secrets/:name/versions',
      role: 'operator',
      summary: 'List the kept versions',
      handle(c, { workspace }) {
        const versions = store.history(workspace.id, parameter(c, 'name')).map((row) => ({
          version: row.version,
          active: row.current,
          verified: row.verified,
          created_by: row.createdBy,
          created_at: iso(row.createdAt),
        }));
        return c.json({ versions });
      },
    },
    {
      method: 'post',
      path: '/v1/secrets/:name/rollback',
      role: 'operator',
      summary: 'Make a kept version the active one again',
      async handle(c, { workspace, identity }) {
        const shape = z.strictObject({ version: versionNumber, no_verify: z.boolean().default(false) });
        const { version, no_verify } = await readBody(c, shape);
        const secret = await store.rollback(
          workspace.id,
          parameter(c, 'name'),
          version,
          identity,
          proof(no_verify),
        );
        onChange(workspace.id, secret.id);
        return c.json(secretView(secret));
      },
    },
    {
      method: 'delete',
      path: '/v1/secrets/:name',
      role: 'operator',
      summary: 'Delete a secret with all its versions; with kill, end what runs of its images too',
      handle(c, { workspace, identity }) {
        const { force, kill } = readQuery(c, z.object({ force: queryFlag, kill: queryFlag }));
        const secret = store.show(workspace.id, parameter(c, 'name'));
        const images = workspace.images.usingSecret(secret.id).map((image) => image.id);
        store.delete(workspace.id, secret.name, identity, force);
        const running = kill ? workspace.containers.liveOf(images) : [];
        for (const { id } of running) workspace.containers.requestStop(id, 'killed', true);
        onChange(workspace.id, secret.id);
        return c.json({ name: secret.name });
      },
    },
  ];
}

function givenValue(request: z.infer<typeof setSecretSchema>, existingRegistry: string | undefined) {
  const { credentials, value } = request;
  if ((credentials === undefined) === (value === undefined)) {
    throw new ImgcredError('INVALID_INPUT', 'give either credentials (for a registry’s secret) or value');
  }
  if (credentials === undefined) return { kind: 'opaque' as const, value: new Secret(value ?? '') };
  // A host stands here, not an image's name: as one, `ghcr.io` would be an image of Docker Hub.
  const given = request.registry === undefined ? undefined : normalizeRegistryHost(request.registry);
  const named = existingRegistry ?? given;
  if (named === undefined) {
    throw new ImgcredError('INVALID_INPUT', 'a new registry’s secret needs the registry that it is for', {
      hint: 'add --registry HOST',
    });
  }
  if (given !== undefined && normalizeRegistryHost(named) !== given) {
    throw new ImgcredError('CONFLICT', `this secret is for the registry ${named}, not for ${given}`);
  }
  const type = detectCredentialType(named, credentials);
  if (type === 'public')
    throw new ImgcredError('INVALID_CREDENTIALS', `the credential for ${named} is empty`);
  return {
    kind: 'registry' as const,
    registry: named,
    value: new Secret(marshalCredentials(named, type, credentials)),
  };
}
