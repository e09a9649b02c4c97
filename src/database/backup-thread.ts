// The entry point of a thread that writes one backup: copying a large database takes seconds, and the gateway's own
// thread has requests to answer.
import { serveTask } from '../threads/index.ts';
import { writeBackup } from './backup.ts';

serveTask(writeBackup);
