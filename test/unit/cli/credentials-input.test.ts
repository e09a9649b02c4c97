import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Command, parseInvocation } from '../../../src/cli/command.ts';
import {
  CREDENTIAL_OPTIONS,
  parseCredentialText,
  readCredentials,
} from '../../../src/cli/credentials-input.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import { errorOf, temporaryDirectory } from '../database/world.ts';

const HOST = 'registry.example.com';
const SECRET = 'hunter2';
const command: Command = {
  words: ['image', 'add'],
  summary: '',
  examples: [],
  options: CREDENTIAL_OPTIONS,
  positionals: [0, 0],
  run: async () => 0,
};
const read = (...argv: string[]) => readCredentials(parseInvocation(command, argv), HOST, 'team/app');

let directory: ReturnType<typeof temporaryDirectory>;
let environment: Record<string, string | undefined>;
beforeEach(() => {
  directory = temporaryDirectory();
  environment = { ...process.env };
  Object.assign(process.env, { REGISTRY_USERNAME: 'me', REGISTRY_PASSWORD: SECRET, REGISTRY_TOKEN: '' });
});
afterEach(() => {
  for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
  Object.assign(process.env, environment);
  directory[Symbol.dispose]();
});

describe('--creds-env', () => {
  const expected = { REGISTRY_USERNAME: 'me', REGISTRY_PASSWORD: SECRET };
  const spellings = [
    ['--creds-env', 'REGISTRY_USERNAME,REGISTRY_PASSWORD'],
    ['--creds-env', 'REGISTRY_USERNAME', '--creds-env', 'REGISTRY_PASSWORD'],
    ['--creds-env', ' REGISTRY_USERNAME , REGISTRY_PASSWORD,'],
  ];
  for (const argv of spellings) {
    test(`takes names: ${argv.join(' ')}`, async () => {
      expect(await read(...argv)).toEqual(expected);
    });
  }

  test('names the variable that is not set, or is empty', async () => {
    for (const name of ['NO_SUCH_VARIABLE', 'REGISTRY_TOKEN']) {
      const error = await errorOf(() => read('--creds-env', name));
      expect(error.message).toContain(`${name} is not the name of an environment variable that is set`);
    }
  });

  const astray = [
    `REGISTRY_PASSWORD=${SECRET}`,
    `${SECRET}=`,
    `${SECRET}==`,
    SECRET,
    SECRET.toUpperCase(),
    `me:${SECRET}`,
    `REGISTRY_USERNAME,${SECRET}`,
  ];
  for (const value of astray) {
    test(`refuses a value typed for a name without repeating it: ${value}`, async () => {
      const error = await errorOf(() => read('--creds-env', value));
      expect(error).toBeInstanceOf(ImgcredError);
      expect(JSON.stringify(error).toLowerCase()).not.toContain(SECRET);
    });
  }

  test('refuses a list that is empty', async () => {
    expect((await errorOf(() => read('--creds-env', ' , '))).message).toBe('--creds-env names no variable');
  });
});

test('no option at all is no credential', async () => {
  expect(await read()).toBeUndefined();
});

test('two sources at once are refused', async () => {
  const error = await errorOf(() => read('--creds-env', 'REGISTRY_USERNAME', '--creds-stdin'));
  expect(error.message).toContain('give one of');
});

for (const option of ['--creds', '--password', '--token']) {
  test(`${option} is refused without repeating its value`, async () => {
    const error = await errorOf(() => read(option, SECRET));
    expect(error.message).toContain(`${option} is refused`);
    expect(JSON.stringify(error)).not.toContain(SECRET);
  });
}

describe('--creds-file', () => {
  const json = (value: unknown) => JSON.stringify(value);
  const login = { USERNAME: 'me', PASSWORD: SECRET };
  const auth = Buffer.from(`me:${SECRET}`).toString('base64');
  const forms: [name: string, text: string, expected: Record<string, string>][] = [
    [
      'lines',
      `# a comment\n\nREGISTRY_USERNAME=me\nexport REGISTRY_PASSWORD="${SECRET}"\n`,
      {
        REGISTRY_USERNAME: 'me',
        REGISTRY_PASSWORD: SECRET,
      },
    ],
    [
      'lines with CR',
      `REGISTRY_USERNAME=me\r\nREGISTRY_PASSWORD='${SECRET}'\r\n`,
      {
        REGISTRY_USERNAME: 'me',
        REGISTRY_PASSWORD: SECRET,
      },
    ],
    [
      'lines of which some mean nothing here',
      `HOME=/root\nREGISTRY_TOKEN=a=b==\n`,
      { REGISTRY_TOKEN: 'a=b==' },
    ],
    ['flat JSON', json(login), login],
    ['our own form', json({ registry: HOST, type: 'basic', credentials: login }), login],
    ['our own form in base64 that ends in =', base64Padded(json({ credentials: login })), login],
    ['user:password', `me:${SECRET}\n`, login],
    ['user:password with an =', `me:a=${SECRET}\n`, { USERNAME: 'me', PASSWORD: `a=${SECRET}` }],
    ['a docker config', json({ auths: { [HOST]: { auth } } }), login],
    [
      'a docker config with a path',
      json({ auths: { [`${HOST}/team`]: { auth }, [HOST]: { auth: 'eDp5' } } }),
      login,
    ],
  ];
  for (const [name, text, expected] of forms) {
    test(`reads ${name}`, async () => {
      const file = join(directory.path, 'creds');
      await writeFile(file, text);
      expect(await read('--creds-file', file)).toEqual(expected);
    });
  }

  test('asks the credential helper that a docker config names', async () => {
    const helper = join(directory.path, 'docker-credential-imgcredtest');
    await writeFile(helper, `#!/bin/sh\ncat >/dev/null\necho '{"Username":"me","Secret":"${SECRET}"}'\n`);
    await chmod(helper, 0o700);
    process.env.PATH = `${directory.path}:${process.env.PATH}`;
    const file = join(directory.path, 'config.json');
    await writeFile(file, json({ credHelpers: { [HOST]: 'imgcredtest' } }));
    expect(Object.values((await read('--creds-file', file)) ?? {}).sort()).toEqual([SECRET, 'me']);
  });

  const bad: [name: string, text: string][] = [
    ['an empty file', '\n# nothing\n'],
    ['a word', SECRET],
    ['broken JSON', `{"PASSWORD":"${SECRET}"`],
    ['lines of unknown variables', `FOO=${SECRET}\n`],
    ['a docker config without the registry', json({ auths: { 'other.example.com': { auth } } })],
    ['a credential for another registry', json({ registry: 'other.example.com', credentials: login })],
  ];
  for (const [name, text] of bad) {
    test(`refuses ${name} without repeating it`, async () => {
      const error = await errorOf(() => parseCredentialText(text, HOST, 'creds'));
      expect(error).toBeInstanceOf(ImgcredError);
      expect(JSON.stringify(error)).not.toContain(SECRET);
    });
  }

  test('says why a file can’t be read', async () => {
    const error = await errorOf(() => read('--creds-file', join(directory.path, 'none')));
    expect(error.message).toContain("can't be read (there is no such file or directory)");
  });
});

/** Base64 whose length makes it end in `=`. */
function base64Padded(text: string): string {
  for (let padded = text; ; padded += ' ') {
    const encoded = Buffer.from(padded).toString('base64');
    if (encoded.endsWith('=')) return encoded;
  }
}
