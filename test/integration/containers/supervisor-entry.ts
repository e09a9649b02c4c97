// What `imgcred internal-container-supervisor` does, for tests that run without the executable.
import { superviseContainer } from '../../../src/worker/containers/index.ts';

process.exit(await superviseContainer());
