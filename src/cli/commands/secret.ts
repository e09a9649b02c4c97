import { z } from 'zod';
import { ImgcredError } from '../../errors/index.ts';
import { forbidCoreDumps } from '../../filesystem/index.ts';
import { secretShape } from '../api-shapes.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, connect, ROLE_OPTIONS } from '../context.ts';
import { CREDENTIAL_OPTIONS, readCredentials } from '../credentials-input.ts';
import { readHiddenInput } from '../hidden-input.ts';
import { optionValue, readValue, wholeNumber } from '../option-values.ts';
import { print, printJson } from '../output.ts';
import { formatAge } from '../table.ts';
import { listCommand } from './list-command.ts';

const pathOf = (name: string | undefined) => `/v1/secrets/${encodeURIComponent(name ?? '')}`;
const VERSION = wholeNumber({ least: 1 }, '3');
const OPTIONS = { ...CONNECTION_OPTIONS, ...ROLE_OPTIONS };

export const secretSet: Command = {
  words: ['secret', 'set'],
  summary: 'Give a secret a new value; what runs and is mounted takes it over',
  usage: 'NAME (--creds-env NAMES | --creds-file FILE | --creds-stdin | --value-stdin)',
  description:
    'A registry’s secret is tried against the registry, with every image that uses it, before it becomes active.\n' +
    'A secret that does not exist yet is made: a registry’s one with --registry, any other with --value-stdin.',
  examples: [
    'REGISTRY_USERNAME=me REGISTRY_PASSWORD=… imgcred secret set oci-registry-registry-example-com --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD',
    'pass show api-key | imgcred secret set api-key --value-stdin',
  ],
  options: {
    ...CREDENTIAL_OPTIONS,
    'value-stdin': { help: 'take the value, whatever it is, from standard input' },
    registry: { value: 'HOST', help: 'registry that a new secret is for' },
    'no-verify': { help: 'do not try the value against the registry (audited)' },
    ...OPTIONS,
  },
  positionals: [1, 1],
  async run(invocation) {
    const name = invocation.positionals[0] ?? '';
    const noVerify = invocation.flag('no-verify');
    await using connection = await connect(invocation);
    const { client } = connection;
    let body: Record<string, unknown>;
    if (invocation.flag('value-stdin')) {
      forbidCoreDumps({ traceable: true });
      body = { value: (await readHiddenInput(`value of ${name}`)).replace(/\r?\n$/, '') };
    } else {
      const given = invocation.text('registry');
      const registry = given ?? (await registryOf(name));
      const credentials = await readCredentials(invocation, registry);
      if (credentials === undefined) {
        throw new ImgcredError('USAGE', 'imgcred secret set: no value is given', {
          hint: 'use --creds-env NAMES, --creds-file FILE, --creds-stdin or --value-stdin',
        });
      }
      body = { credentials, ...(given === undefined ? {} : { registry: given }) };
    }
    const secret = await client.json(secretShape, 'PUT', pathOf(name), { ...body, no_verify: noVerify });
    if (invocation.flag('json')) await printJson(secret);
    else await print(`${secret.name} is now at version ${secret.version}\n`);
    return 0;

    async function registryOf(secretName: string): Promise<string> {
      const secret = await client.json(secretShape, 'GET', pathOf(secretName)).catch((thrown: unknown) => {
        if (!(thrown instanceof ImgcredError) || thrown.code !== 'NOT_FOUND') throw thrown;
        throw new ImgcredError('NOT_FOUND', thrown.message, {
          hint: 'a new one needs --registry HOST; any other than a registry’s login --value-stdin',
        });
      });
      if (secret.registry !== null) return secret.registry;
      throw new ImgcredError('USAGE', `the secret ${secretName} is not a registry's: it has no login`, {
        hint: 'use --value-stdin',
      });
    }
  },
};

export const secretList = listCommand({
  words: ['secret', 'ls'],
  summary: 'List secrets: their names and versions, never their values',
  examples: ['imgcred secret ls'],
  options: OPTIONS,
  path: () => '/v1/secrets',
  field: 'secrets',
  row: secretShape,
  named: (secret) => secret.name,
  header: ['NAME', 'KIND', 'REGISTRY', 'TYPE', 'VERSION', 'UPDATED'],
  cells: (secret) => [
    secret.name,
    secret.kind,
    secret.registry ?? '-',
    secret.credential_type ?? '-',
    String(secret.version),
    formatAge(Date.parse(secret.updated_at), Date.now()),
  ],
});

export const secretShow: Command = {
  words: ['secret', 'show'],
  summary: 'Show a secret’s metadata, the images that use it, and its kept versions',
  usage: 'NAME',
  examples: ['imgcred secret show oci-registry-ghcr-io'],
  options: OPTIONS,
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    await printJson(await connection.client.json(secretShape, 'GET', pathOf(invocation.positionals[0])));
    return 0;
  },
};

export const secretReveal: Command = {
  words: ['secret', 'reveal'],
  summary: 'Print a secret’s value (needs the role operator; audited)',
  usage: 'NAME',
  examples: ['imgcred secret reveal api-key'],
  options: {
    version: { value: 'N', takes: VERSION, help: 'a kept version, instead of the active one' },
    ...OPTIONS,
  },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const version = optionValue(invocation, 'version', VERSION);
    const body = version === undefined ? {} : { version };
    const shape = z.looseObject({ value: z.string() });
    const path = `${pathOf(invocation.positionals[0])}/reveal`;
    const answer = await connection.client.json(shape, 'POST', path, body);
    if (invocation.flag('json')) await printJson(answer);
    else await print(`${answer.value}\n`);
    return 0;
  },
};

export const secretHistory = listCommand({
  words: ['secret', 'history'],
  summary: 'List a secret’s kept versions',
  usage: 'NAME',
  examples: ['imgcred secret history oci-registry-ghcr-io'],
  options: OPTIONS,
  positionals: [1, 1],
  path: (invocation) => `${pathOf(invocation.positionals[0])}/versions`,
  field: 'versions',
  row: z.looseObject({
    version: z.number(),
    active: z.boolean(),
    verified: z.boolean(),
    created_by: z.string(),
    created_at: z.string(),
  }),
  named: (row) => String(row.version),
  header: ['VERSION', 'VERIFIED', 'CREATED', 'BY'],
  cells: (row) => [
    String(row.version) + (row.active ? ' (active)' : ''),
    row.verified ? 'yes' : 'no',
    row.created_at,
    row.created_by,
  ],
});

export const secretRollback: Command = {
  words: ['secret', 'rollback'],
  summary: 'Make a kept version the active one again',
  usage: 'NAME VERSION',
  examples: ['imgcred secret rollback oci-registry-ghcr-io 3'],
  options: { 'no-verify': { help: 'do not try the value against the registry (audited)' }, ...OPTIONS },
  positionals: [2, 2],
  async run(invocation) {
    const [name, given = ''] = invocation.positionals;
    const version = readValue('VERSION', given, VERSION);
    await using connection = await connect(invocation);
    const secret = await connection.client.json(secretShape, 'POST', `${pathOf(name)}/rollback`, {
      version,
      no_verify: invocation.flag('no-verify'),
    });
    if (invocation.flag('json')) await printJson(secret);
    else await print(`${secret.name} is now at version ${secret.version}\n`);
    return 0;
  },
};

export const secretRemove: Command = {
  words: ['secret', 'rm'],
  summary: 'Delete a secret with all its versions',
  usage: 'NAME',
  examples: ['imgcred secret rm api-key', 'imgcred secret rm --force --kill oci-registry-ghcr-io'],
  options: {
    force: { help: 'even while images use it: they lose their credential' },
    kill: { help: 'with --force: kill the containers of these images too' },
    ...OPTIONS,
  },
  positionals: [1, 1],
  async run(invocation) {
    await using connection = await connect(invocation);
    const query = new URLSearchParams(
      ['force', 'kill']
        .filter((name) => invocation.flag(name))
        .map((name): [string, string] => [name, 'true']),
    );
    await connection.client.fetch('DELETE', `${pathOf(invocation.positionals[0])}?${query}`);
    await print(`${invocation.positionals[0]}\n`);
    return 0;
  },
};
