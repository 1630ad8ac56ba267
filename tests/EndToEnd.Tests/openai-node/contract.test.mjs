// The official OpenAI Node package, unmodified, against the service: what its users do, in the order in which they do it.
//
//   BASE_URL=http://127.0.0.1:5088/v1 MODEL=sample TRAIN=train.jsonl node --test contract.test.mjs
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import test from 'node:test';
import OpenAI, { toFile } from 'openai';

const { BASE_URL, MODEL, TRAIN, API_KEY = 'none' } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const terminal = new Set(['succeeded', 'failed', 'cancelled']);
const hyperparameters = { n_epochs: 1, batch_size: 8, learning_rate_multiplier: 5 };

async function waitForEnd(id) {
  for (let waited = 0; waited < 180_000; waited += 300) {
    const job = await client.fineTuning.jobs.retrieve(id);
    if (terminal.has(job.status)) return job;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  assert.fail(`${id} did not end within 180 s`);
}

test('a file and a job, to the end, with its events and checkpoints', async () => {
  const file = await client.files.create({ file: fs.createReadStream(TRAIN), purpose: 'fine-tune' });
  assert.match(file.id, /^file-/);
  assert.equal(file.object, 'file');
  assert.equal(file.bytes, fs.statSync(TRAIN).size);
  await client.files.waitForProcessing(file.id);
  assert.equal(await (await client.files.content(file.id)).text(), fs.readFileSync(TRAIN, 'utf8'));

  const created = await client.fineTuning.jobs.create({
    model: MODEL,
    training_file: file.id,
    suffix: 'node',
    seed: 7,
    metadata: { team: 'contract' },
    method: { type: 'supervised', supervised: { hyperparameters } },
    adapter: { type: 'lora', rank: 4, alpha: 8 },        // extra members of our own
    checkpoints: { every_steps: 4, keep: 100 },
  });
  assert.match(created.id, /^ftjob-/);
  assert.equal(created.object, 'fine_tuning.job');
  assert.equal(created.training_file, file.id);
  assert.equal(created.seed, 7);

  const job = await waitForEnd(created.id);
  assert.equal(job.status, 'succeeded', JSON.stringify(job.error));
  assert.match(job.fine_tuned_model, /^ft:/);
  assert.ok(job.trained_tokens > 0);
  assert.ok(Number.isInteger(job.finished_at));
  assert.deepEqual(job.metadata, { team: 'contract' });
  assert.ok(job.result_files.length > 0);
  assert.match(await (await client.files.content(job.result_files[0])).text(), /^step,train_loss/);

  const events = [];
  for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 3 })) events.push(event);
  assert.ok(events.length > 6, `${events.length} events`);
  assert.equal(new Set(events.map((event) => event.id)).size, events.length, 'no event comes twice');
  assert.ok(events.every((event, index) => index === 0 || event.created_at <= events[index - 1].created_at), 'newest first');
  assert.ok(events.some((event) => event.type === 'metrics' && event.data.train_loss > 0));

  const checkpoints = [];
  for await (const checkpoint of client.fineTuning.jobs.checkpoints.list(job.id, { limit: 2 })) checkpoints.push(checkpoint);
  assert.ok(checkpoints.length > 2, `${checkpoints.length} checkpoints`);
  assert.equal(new Set(checkpoints.map((checkpoint) => checkpoint.step_number)).size, checkpoints.length);
  assert.ok(checkpoints.every((checkpoint) => checkpoint.fine_tuning_job_id === job.id));

  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes(job.fine_tuned_model), names.join(', '));
});

test('a file in parts becomes the same file', async () => {
  const whole = fs.readFileSync(TRAIN);
  const upload = await client.uploads.create({ filename: 'rows.jsonl', purpose: 'fine-tune', bytes: whole.length, mime_type: 'text/jsonl' });
  assert.equal(upload.object, 'upload');
  assert.equal(upload.status, 'pending');
  const half = whole.length >> 1;
  const second = await client.uploads.parts.create(upload.id, { data: await toFile(whole.subarray(half), 'part') });
  const first = await client.uploads.parts.create(upload.id, { data: await toFile(whole.subarray(0, half), 'part') });
  assert.equal(first.object, 'upload.part');
  assert.equal(first.upload_id, upload.id);
  const md5 = createHash('md5').update(whole).digest('hex');
  const done = await client.uploads.complete(upload.id, { part_ids: [first.id, second.id], md5 });
  assert.equal(done.status, 'completed');
  assert.equal(done.file.bytes, whole.length);
  assert.equal(await (await client.files.content(done.file.id)).text(), whole.toString('utf8'));

  const other = await client.uploads.create({ filename: 'rows.jsonl', purpose: 'fine-tune', bytes: 10, mime_type: 'text/jsonl' });
  assert.equal((await client.uploads.cancel(other.id)).status, 'cancelled');
  await assert.rejects(client.uploads.complete(other.id, { part_ids: ['part_1'] }), OpenAI.ConflictError);
});

test('another job is cancelled', async () => {
  const file = await client.files.create({ file: fs.createReadStream(TRAIN), purpose: 'fine-tune' });
  const created = await client.fineTuning.jobs.create({
    model: MODEL,
    training_file: file.id,
    method: { type: 'supervised', supervised: { hyperparameters: { ...hyperparameters, n_epochs: 50 } } },
  });
  const cancelled = await client.fineTuning.jobs.cancel(created.id);
  assert.equal(cancelled.id, created.id);
  assert.equal((await waitForEnd(created.id)).status, 'cancelled');

  const listed = [];
  for await (const job of client.fineTuning.jobs.list({ limit: 1 })) listed.push(job.id);
  assert.ok(listed.includes(created.id));
});

test('a mistake comes back as the error class that the package has for it', async () => {
  await assert.rejects(
    client.fineTuning.jobs.create({ model: MODEL, training_file: 'file-00000000000000000000000000000000' }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === 'training_file',
  );
  await assert.rejects(client.fineTuning.jobs.retrieve('ftjob-00000000000000000000000000000000'), OpenAI.NotFoundError);
});
