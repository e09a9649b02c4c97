// The entry point of a thread that works on one index: for a million files that takes seconds, and the process has
// requests to answer.
import { serveTask } from '../threads/index.ts';
import { doIndexWork } from './work.ts';

serveTask(doIndexWork);
