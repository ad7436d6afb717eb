// Loaded into the processes that tests start (`node --import`): ends them when the test's own process does,
// however that ends. The other end of pipe 3 is held by the test and by nobody else; it closes with it, after
// `kill -9` too.
import { Socket } from 'node:net';
import { isMainThread } from 'node:worker_threads';

// threads are started with the options of the process, and end with it
if (isMainThread)
  new Socket({ fd: 3 })
    .on('close', () => process.kill(process.pid, 'SIGKILL'))
    .on('error', () => {})
    .resume()
    .unref();
