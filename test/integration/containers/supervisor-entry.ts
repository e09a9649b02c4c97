// What `imgcred internal-container-supervisor` does, for tests that run without the executable.
import { superviseContainer } from '../../../src/worker/containers/supervisor.ts';

process.exit(await superviseContainer());
