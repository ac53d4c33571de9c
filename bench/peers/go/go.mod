module spanheap/bench/peers/go

go 1.25
