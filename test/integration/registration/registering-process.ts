// Registers an image on a data directory and prints `done INDEX_DIGEST PEAK_BYTES`; killed by its test now and then.
import { readFileSync } from 'node:fs';
import { prepareDataDirectory } from '../../../src/config/index.ts';
import { ContentStore } from '../../../src/content/index.ts';
import { openDatabase } from '../../../src/database/index.ts';
import { ImageRegistration, KeptLayers, LayerIndexes } from '../../../src/gateway/index.ts';
import { IndexThreads } from '../../../src/index/index.ts';
import { silentLogger } from '../../../src/observability/index.ts';
import { RegistryClient } from '../../../src/registry/index.ts';
import { openSecrets } from '../../../src/secrets/index.ts';

const [directory = '', reference = '', keep = 'none'] = process.argv.slice(2);
const layout = prepareDataDirectory(directory);
const database = openDatabase(directory);
const secrets = await openSecrets(database, directory, { env: {} });
const workspace = await secrets.workspaces.ensure('default');
const layers = new LayerIndexes({
  directory: layout.layerIndexes,
  parallel: 2,
  work: new IndexThreads(
    process.env.IMGCRED_TEST_GATE ? { entry: '../test/integration/registration/gated-thread' } : {},
  ),
  logger: silentLogger,
  kept:
    keep === 'none' ? undefined : new KeptLayers(() => ContentStore.open(layout.cache), { policy: 'all' }),
});
const registration = new ImageRegistration({
  database,
  secrets: secrets.store,
  credentials: secrets.imageCredentials,
  layers,
  indexDirectory: layout.indexes,
  connect: (host, provider) => new RegistryClient(host, provider),
  logger: silentLogger,
});
const { image } = await registration.register(workspace.id, { reference }, { actor: 'test' });
await layers.close();
database.close();
const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
process.stdout.write(`done ${image.indexDigest} ${Number(peak) * 1024}\n`);
process.exit(0);
