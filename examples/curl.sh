#!/bin/sh
# Ask with curl, by both doors: sh examples/curl.sh [address]
address=${1:-http://127.0.0.1:7860}

# The OpenAI API, as a stream.
curl -sN "$address/v1/chat/completions" -H 'Content-Type: application/json' -d '{
  "model": "budgie", "stream": true, "max_tokens": 20, "temperature": 0,
  "messages": [{"role": "user", "content": "Hello, who are you?"}]
}'

# /generate: a call begins with a POST, whose answer has the name of its stream.
call=$address/gradio_api/call/v2/generate
id=$(curl -s "$call" -H 'Content-Type: application/json' \
  -d '{"messages": "Hello, who are you?", "model": "budgie", "strategy": "greedy", "max_new_tokens": 20}' | cut -d'"' -f4)
curl -sN "$call/$id"
