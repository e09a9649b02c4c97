import { describe, expect, test } from 'bun:test';
import { statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import {
  dataLayout,
  defaultDataDirectory,
  loadConfig,
  prepareDataDirectory,
  type SettingName,
} from '../../../src/config/index.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import { temporaryDirectory } from '../database/world.ts';

function withFile<T>(text: string, work: (path: string) => T): T {
  using directory = temporaryDirectory();
  const path = join(directory.path, 'settings.json');
  writeFileSync(path, text);
  return work(path);
}

function errorOf(work: () => unknown): ImgcredError {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof ImgcredError) return thrown;
    throw thrown;
  }
  throw new Error('nothing was thrown');
}

describe('loadConfig', () => {
  test('has a value for everything when it is told nothing', () => {
    expect(loadConfig({ data_dir: '/d' }, {})).toMatchObject({
      data_dir: '/d',
      roles: ['gateway', 'scheduler', 'worker'],
      listen: '127.0.0.1:7480',
      slots: 64,
      read_timeout_ms: 60_000,
      fuse_driver: 'auto',
      log_level: 'info',
      insecure_registries: [],
    });
  });

  test('takes flags over the environment over the file', () => {
    withFile('{"slots": 1, "listen": "file:1", "worker_name": "file"}', (file) => {
      const environment = { IMGCRED_SLOTS: '2', IMGCRED_LISTEN: 'env:2' };
      const config = loadConfig({ slots: '3' }, environment, file);
      expect([config.slots, config.listen, config.worker_name]).toEqual([3, 'env:2', 'file']);
    });
  });

  test('takes an undefined flag and an empty variable as not given', () => {
    expect(loadConfig({ slots: undefined }, { IMGCRED_SLOTS: '' }).slots).toBe(64);
  });

  const forms: [flags: Partial<Record<SettingName, unknown>>, expected: Record<string, unknown>][] = [
    [{ roles: 'all' }, { roles: ['gateway', 'scheduler', 'worker'] }],
    [{ roles: 'gateway,scheduler' }, { roles: ['gateway', 'scheduler'] }],
    [{ roles: ['worker'] }, { roles: ['worker'] }],
    [{ insecure_registries: 'a:1,b' }, { insecure_registries: ['a:1', 'b'] }],
    [{ insecure_registries: ['a:1'] }, { insecure_registries: ['a:1'] }],
    [{ cache_limit: '1GiB' }, { cache_limit: 2 ** 30 }],
    [{ cache_limit: 7 }, { cache_limit: 7 }],
    [{ data_dir: 'relative' }, { data_dir: resolve('relative') }],
    [{ listen: 'none' }, { listen: 'none' }],
    [{ listen: '[::1]:0' }, { listen: '[::1]:0' }],
    [{ gateway: 'https://a.example:1' }, { gateway: 'https://a.example:1' }],
  ];
  for (const [flags, expected] of forms) {
    test(`reads ${JSON.stringify(flags)}`, () => {
      expect(loadConfig(flags, {})).toMatchObject(expected);
    });
  }

  const settings = 'imgcred serve --help lists the settings';
  const wrong: [flags: Partial<Record<SettingName, unknown>>, message: string, hint: string][] = [
    [
      { roles: 'gatekeeper' },
      "--role gatekeeper: must be 'all' or some of gateway, scheduler, worker",
      'for example --role gateway,scheduler',
    ],
    [{ listen: '7480' }, '--listen 7480: must be HOST:PORT or none', 'for example --listen 127.0.0.1:7480'],
    // It may hold a login.
    [
      { gateway: 'ftp://me:pass@x' },
      '--gateway: must be an http or https address',
      'for example --gateway https://imgcred.example.com',
    ],
    [
      { cache_limit: 'lots' },
      '--cache-limit lots: must be a size, such as 512MiB or 10GB',
      'for example --cache-limit 20GB',
    ],
    [{ slots: 'many' }, '--slots many: must be a number', 'for example --slots 64'],
    [{ slots: '0' }, '--slots 0: must be at least 1', 'for example --slots 64'],
    [{ slots: '1e9' }, '--slots 1e9: must be at most 10000', 'for example --slots 64'],
    [{ slots: '1.5' }, '--slots 1.5: must be a whole number', 'for example --slots 64'],
    [{ insecure_registries: [''] }, '--insecure-registry: must not be empty', settings],
    [
      { fuse_driver: 'magic' },
      '--fuse-driver magic: must be auto, kernel or fuse-native',
      'for example --fuse-driver auto',
    ],
    [
      { log_level: 'loud' },
      '--log-level loud: must be debug, info, warn or error',
      'for example --log-level info',
    ],
    [{ data_dir: '' }, '--data-dir "": must not be empty', settings],
  ];
  for (const [flags, message, hint] of wrong) {
    test(`says what is wrong with ${JSON.stringify(flags)}`, () => {
      const error = errorOf(() => loadConfig(flags, {}));
      expect(error.code).toBe('USAGE');
      expect({ message: error.message, hint: error.hint }).toEqual({ message, hint });
    });
  }

  test('names the variable or the file that a wrong value came from', () => {
    expect(errorOf(() => loadConfig({}, { IMGCRED_SLOTS: 'x' })).message).toBe(
      'IMGCRED_SLOTS=x: must be a number',
    );
    withFile('{"slots": "x"}', (file) => {
      expect(errorOf(() => loadConfig({}, {}, file)).message).toBe(`${file}: slots: x: must be a number`);
    });
  });

  test('names the origin of the value that counts, when several are given', () => {
    withFile('{"slots": 1}', (file) => {
      const error = errorOf(() => loadConfig({}, { IMGCRED_SLOTS: 'x' }, file));
      expect(error.message).toStartWith('IMGCRED_SLOTS=x: ');
    });
  });

  test('refuses a setting in the file that does not exist', () => {
    withFile('{"slosts": 1}', (file) => {
      expect(errorOf(() => loadConfig({}, {}, file)).message).toBe(`${file}: slosts: no such setting`);
    });
  });

  for (const text of ['', '[]', '"x"', '{"slots": 1', 'null']) {
    test(`refuses a file that holds ${JSON.stringify(text)}`, () => {
      withFile(text, (file) => {
        expect(errorOf(() => loadConfig({}, {}, file)).message).toBe(
          `the configuration file ${file} is not a JSON object`,
        );
      });
    });
  }

  test('says why a file can’t be read', () => {
    expect(errorOf(() => loadConfig({}, {}, '/no/such/file')).message).toContain(
      '(there is no such file or directory)',
    );
  });
});

describe('the data directory', () => {
  test('is the system’s for root, and the user’s own otherwise', () => {
    const root = process.getuid?.() === 0;
    const cases: [environment: Record<string, string>, path: string][] = [
      [{ XDG_DATA_HOME: '/x' }, '/x/imgcred'],
      [{ XDG_DATA_HOME: 'relative', HOME: '/h' }, '/h/.local/share/imgcred'],
      [{ HOME: '/h' }, '/h/.local/share/imgcred'],
      [{}, join(homedir(), '.local/share/imgcred')],
    ];
    for (const [environment, path] of cases) {
      expect(defaultDataDirectory(environment)).toBe(root ? '/var/lib/imgcred' : path);
    }
  });

  test('is made with its folders, for its owner only', () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'a', 'b');
    const layout = prepareDataDirectory(path);
    for (const folder of [path, layout.indexes, layout.logs, layout.cache, layout.mounts]) {
      expect(statSync(folder).mode & 0o777).toBe(0o700);
    }
  });

  test('loses what others may do in it', () => {
    using directory = temporaryDirectory();
    const { root } = prepareDataDirectory(directory.path);
    expect(statSync(root).mode & 0o077).toBe(0);
  });

  test('can’t be where a file is', () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'file');
    writeFileSync(path, '');
    const error = errorOf(() => prepareDataDirectory(join(path, 'below')));
    expect(error.code).toBe('DATA_DIR');
    expect(error.hint).toContain('is a directory with free space');
  });

  test('has every place below it', () => {
    for (const path of Object.values(dataLayout('/d'))) expect(path).toStartWith('/d');
  });
});
