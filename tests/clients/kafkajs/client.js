// kafkajs as a test client: one JSON task in, JSON lines out (the protocol stands in tests/src/clients).
'use strict'
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const LZ4Codec = require('@2l/kafkajs-lz4')
const zstd = require('@bokuweb/zstd-wasm')

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
const lz4 = LZ4Codec.default || LZ4Codec[0] || LZ4Codec
CompressionCodecs[CompressionTypes.LZ4] = new lz4().codec
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})
const codecs = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }

const out = fields => process.stdout.write(JSON.stringify(fields) + '\n')
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
let stopped = false
const stopping = new Promise(resolve => {
  const stop = () => { stopped = true; resolve() }
  process.stdin.once('data', stop)
  process.stdin.once('end', stop)
})
// Answers may stay out for as long as the broker is down, and a call that gave up could not be told from a lost record.
const retry = { initialRetryTime: 100, maxRetryTime: 500, retries: 1000000 }

async function produce (kafka, task) {
  const options = { retry }
  // kafkajs asks for one request in flight beside idempotence.
  if (task.idempotent) Object.assign(options, { idempotent: true, maxInFlightRequests: 1 })
  const producer = kafka.producer(options)
  await producer.connect()
  out({ t: 'ready' })
  const start = Date.now()
  const most = 1000
  let n = task.first
  const end = task.count === null ? Infinity : task.first + task.count
  while (n < end && !stopped) {
    let size = Math.min(most, end - n)
    if (task.per_second) {
      const due = Math.floor((Date.now() - start) / 1000 * task.per_second) - (n - task.first)
      if (due < 1) { await sleep(10); continue }
      size = Math.min(size, due)
    }
    const messages = []
    for (const last = n + size; n < last; n++) {
      const message = { key: `key-${n % task.keys}`, value: `${task.prefix}:${n}:`.padEnd(task.size, '.') }
      if (task.partition !== null) message.partition = task.partition
      messages.push(message)
    }
    // The answer names a base offset per partition; which record went where is only known by choosing the partition ourselves.
    const partitioned = await placed(kafka, task, messages)
    const results = await producer.send({ topic: task.topic, compression: CompressionTypes[codecs[task.compression]], messages: partitioned })
    for (const { partition, baseOffset, errorCode } of results) {
      if (errorCode !== 0) { out({ t: 'error', m: `code ${errorCode}` }); continue }
      let offset = Number(baseOffset)
      for (const m of partitioned) if (m.partition === partition) out({ t: 'ack', p: partition, o: offset++, k: m.key, v: m.value })
    }
  }
  await producer.disconnect()
  out({ t: 'done' })
}

let metadata
async function placed (kafka, task, messages) {
  if (!metadata) {
    const admin = kafka.admin()
    await admin.connect()
    metadata = (await admin.fetchTopicMetadata({ topics: [task.topic] })).topics[0].partitions
    await admin.disconnect()
  }
  const { Partitioners } = require('kafkajs')
  placed.partitioner = placed.partitioner || Partitioners.DefaultPartitioner()
  return messages.map(message => message.partition !== undefined ? message
    : { ...message, partition: placed.partitioner({ topic: task.topic, partitionMetadata: metadata, message }) })
}

async function consume (kafka, task) {
  const options = { groupId: task.group, retry }
  if (task.session_ms) Object.assign(options, { sessionTimeout: task.session_ms, heartbeatInterval: Math.floor(task.session_ms / 4) })
  const consumer = kafka.consumer(options)
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => out({ t: 'assigned', ps: payload.memberAssignment[task.topic] || [] }))
  consumer.on(consumer.events.CRASH, ({ payload }) => out({ t: payload.restart ? 'note' : 'error', m: String(payload.error) }))
  await consumer.connect()
  await consumer.subscribe({ topics: [task.topic], fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      out({ t: 'rec', p: partition, o: Number(message.offset), k: message.key && message.key.toString(), v: message.value && message.value.toString() })
    },
  })
  out({ t: 'ready' })
  await stopping
  await consumer.disconnect()
  out({ t: 'done' })
}

async function main () {
  await zstd.init()
  const task = JSON.parse(process.argv[2])
  // kafkajs writes its log to stdout by default, where our lines go.
  const logCreator = () => ({ label, log }) => process.stderr.write(`${label} ${log.message} ${log.error || ''} ${log.stack || ''}\n`)
  const kafka = new Kafka({ clientId: 'tests', brokers: task.bootstrap.split(','), logLevel: logLevel.WARN, logCreator, retry })
  await { produce, consume }[task.cmd](kafka, task)
}

// What is still on its way into a full pipe would be lost by an exit: leave when the last line is through.
const leave = code => process.stdout.write('', () => process.exit(code))
main().then(() => leave(0), error => {
  out({ t: 'error', m: String(error.stack || error) })
  leave(1)
})
